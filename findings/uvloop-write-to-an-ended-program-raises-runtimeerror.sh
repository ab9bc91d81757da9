#!/usr/bin/env bash
# uvloop 0.23.0 beside the asyncio of Python 3.11, seen 2026-11-30.
#
# Expected: both event loops report a write to the standard input of a program that has ended in the same way, as a
# ConnectionError (or a subclass), which a reader of the pipe's other end has caused.
# Seen: with asyncio `write` does nothing and `drain` raises ConnectionResetError. With uvloop `write` itself raises
# RuntimeError, which code that suppresses ConnectionError lets through. `is_closing()` is True with both.
#
# Output:
#   asyncio: is_closing True, drain raised ConnectionResetError
#   uvloop: is_closing True, write raised RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0 2>/dev/null
cat >"$folder/seen.py" <<'PY'
import asyncio, uvloop

async def main(name):
    program = await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
    await program.wait()
    async with asyncio.timeout(20):
        while not program.stdin.is_closing():
            await asyncio.sleep(0.05)
    step = "write"
    try:
        program.stdin.write(b"a line\n")
        step = "drain"
        await program.stdin.drain()
        print(f"{name}: is_closing True, nothing raised")
    except Exception as error:
        print(f"{name}: is_closing True, {step} raised {type(error).__name__}")

asyncio.run(main("asyncio"))
uvloop.run(main("uvloop"))
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
asyncio: is_closing True, drain raised ConnectionResetError
uvloop: is_closing True, write raised RuntimeError
SEEN
