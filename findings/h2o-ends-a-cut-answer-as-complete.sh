#!/usr/bin/env bash
# H2O 2.2.5 (Debian 12: h2o 2.2.5+dfsg2-7) as a reverse proxy, curl 7.88, seen 2026-12-01.
#
# Expected: when the server behind the proxy closes its connection in the middle of a chunked answer, the proxy tells
# its client that the answer is incomplete: over HTTP/1.1 by closing without the last chunk, over HTTP/2 by RST_STREAM.
# Seen: over HTTP/1.1 it sends a last chunk of its own, over HTTP/2 it ends the stream with END_STREAM, both as for a
# complete answer (curl 0). A client cannot tell the two apart. Without the proxy curl says 18 (transfer closed with
# outstanding read data remaining).
#
# Output:
#   direct: curl 18, body: half
#   HTTP/1.1: curl 0, body: half
#   HTTP/2: curl 0, body: half
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download h2o=2.2.5+dfsg2-7 libh2o-evloop0.13 libh2o0.13 libwslay1 >/dev/null 2>&1
for package in ./*.deb; do dpkg -x "$package" .; done
cat >server.py <<'PY'
import socket
server = socket.create_server(("127.0.0.1", 28971))
while True:
    client, _ = server.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n4\r\nhalf\r\n")
    client.close()
PY
cat >h2o.yaml <<'YAML'
num-threads: 1
listen: {host: 127.0.0.1, port: 28972}
hosts:
  default:
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:28971/"
YAML
python3 server.py &
LD_LIBRARY_PATH="$folder/usr/lib/$(uname -m)-linux-gnu" "$folder/usr/bin/h2o" -m worker -c h2o.yaml >log 2>&1 &
for _ in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:28972/ && break || sleep 0.1; done
ask() { code=0; body=$(curl -s --max-time 10 "$2" "http://127.0.0.1:$3/") || code=$?; echo "$1: curl $code, body: $body"; }
{ ask direct --http1.1 28971; ask HTTP/1.1 --http1.1 28972; ask HTTP/2 --http2-prior-knowledge 28972; } | tee seen
diff seen - <<'OUT'
direct: curl 18, body: half
HTTP/1.1: curl 0, body: half
HTTP/2: curl 0, body: half
OUT
