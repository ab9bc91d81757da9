#!/usr/bin/env bash
# asyncpg 0.32.0, seen 2026-11-30 on Python 3.11.
#
# Expected: a keyword argument of `connect` replaces the part of the URL that it names. So `host=` replaces the host, and
# the port of the URL stays.
# Seen: with `host=` the port of the URL is ignored as well, and the default 5432 is used. With `port=` alone the host of
# the URL stays. psycopg 3.3.4 (libpq) keeps the port of the URL in the first case.
#
# Output (the URL has the port of the listener, and the name of a host that does not exist):
#   asyncpg, host=: nobody came
#   asyncpg, host= and port=: a connection came
#   psycopg, host=: a connection came
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asyncpg==0.32.0 'psycopg[binary]==3.3.4'
cat >"$folder/seen.py" <<'PY'
import asyncio, contextlib
import asyncpg, psycopg

HOST = "127.0.0.29"  # nothing listens at its port 5432

async def main():
    for name, connect in (
        ("asyncpg, host=", lambda url, port: asyncpg.connect(url, host=HOST, timeout=5)),
        ("asyncpg, host= and port=", lambda url, port: asyncpg.connect(url, host=HOST, port=port, timeout=5)),
        ("psycopg, host=", lambda url, port: psycopg.AsyncConnection.connect(url, host=HOST, connect_timeout=5)),
    ):
        came = asyncio.Event()

        def accept(reader, writer):
            came.set()
            writer.close()

        async with await asyncio.start_server(accept, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            with contextlib.suppress(Exception):
                await connect(f"postgresql://user@db.invalid:{port}/name?sslmode=disable", port)
            print(f"{name}:", "a connection came" if came.is_set() else "nobody came")

asyncio.run(asyncio.wait_for(main(), 60))
PY
timeout 90 "$folder/venv/bin/python" "$folder/seen.py" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
asyncpg, host=: nobody came
asyncpg, host= and port=: a connection came
psycopg, host=: a connection came
SEEN
