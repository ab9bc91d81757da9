#!/usr/bin/env bash
# mcp 2.3.0 (Python SDK of the Model Context Protocol), client over streamable HTTP, seen 2026-11-30 on Python 3.11.
#
# Expected: each request is a POST of its own, so one whose connection is refused fails, and the others go on.
# Seen: a call is under way over a healthy connection. The listener closes, as in a rolling restart, and a second call
# is refused. Both calls end at that moment with the same error, -32000 "Connection closed", and the block in which the
# client is used is cancelled and raises. An application cannot tell the call that was never sent from the one that may have run.
#
# Output:
#   the client's block ended with: ConnectError
#   the refused call: -32000 Connection closed
#   the call under way: -32000 Connection closed
#   the server finished the call under way: True
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0 2>/dev/null
cat >"$folder/server.py" <<'PY'
import asyncio, sys
from pathlib import Path
from mcp.server.mcpserver import MCPServer

server = MCPServer("slow", log_level="ERROR")

@server.tool()
async def wait(seconds: float, mark: str) -> str:
    Path(mark + ".begun").touch()
    await asyncio.sleep(seconds)
    Path(mark + ".ended").touch()
    return "waited"

server.run("streamable-http", port=int(sys.argv[1]))
PY
cat >"$folder/seen.py" <<'PY'
import asyncio, socket, sys
from pathlib import Path
from mcp import Client, MCPError

folder, target = Path(sys.argv[1]), int(sys.argv[2])

async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()

async def passed(reader, writer):
    back, forth = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(pump(reader, forth), pump(back, writer), return_exceptions=True)

async def until(holds):
    while not holds():
        await asyncio.sleep(0.05)

def reachable():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", target)) == 0

async def outcome(client, mark, seconds):
    try:
        return (await client.call_tool("wait", {"seconds": seconds, "mark": str(folder / mark)})).structured_content
    except MCPError as error:
        return f"{error.code} {error.message}"

async def main():
    await until(reachable)
    door = await asyncio.start_server(passed, "127.0.0.1", 0)
    calls = []
    try:
        async with Client(f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/mcp") as client:
            calls.append(asyncio.create_task(outcome(client, "first", 3)))
            await until((folder / "first.begun").exists)
            door.close()  # the listener alone: connections live on
            calls.append(asyncio.create_task(outcome(client, "second", 0)))
            await asyncio.wait(calls)
    except* Exception as errors:
        print("the client's block ended with:", type(errors.exceptions[0]).__name__)
    print("the refused call:", await calls[1])
    print("the call under way:", await calls[0])
    await until((folder / "first.ended").exists)
    print("the server finished the call under way:", True)

asyncio.run(asyncio.wait_for(main(), 40))
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/venv/bin/python" "$folder/server.py" "$port" >/dev/null 2>&1 &
server=$!
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" "$folder" "$port" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
the client's block ended with: ConnectError
the refused call: -32000 Connection closed
the call under way: -32000 Connection closed
the server finished the call under way: True
SEEN
