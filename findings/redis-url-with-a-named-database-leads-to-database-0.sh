#!/usr/bin/env bash
# redis-py 8.1.0 and valkey-py 6.2.0, seen 2026-11-30 on Python 3.11.
#
# Expected: a URL whose path is no number of a database is refused, as an unknown scheme and a wrong option are.
# Seen: the path is ignored, so the client works in database 0, which may hold the keys of another program. A wrong
# number in the query is refused.
#
# Output:
#   redis://localhost/2: db=2
#   redis://localhost/cache: db=0
#   redis://localhost/2a: db=0
#   redis://localhost?db=2a: ValueError
#   valkey://localhost/cache: db=0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkey==6.2.0
cat >"$folder/seen.py" <<'PY'
import redis, valkey

for library, url in (
    (redis.Redis, "redis://localhost/2"),
    (redis.Redis, "redis://localhost/cache"),
    (redis.Redis, "redis://localhost/2a"),
    (redis.Redis, "redis://localhost?db=2a"),
    (valkey.Valkey, "valkey://localhost/cache"),
):
    try:
        client = library.from_url(url)
        print(f"{url}: db={client.connection_pool.connection_kwargs.get('db', 0)}")
    except ValueError as error:
        print(f"{url}: {type(error).__name__}")
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
redis://localhost/2: db=2
redis://localhost/cache: db=0
redis://localhost/2a: db=0
redis://localhost?db=2a: ValueError
valkey://localhost/cache: db=0
SEEN
