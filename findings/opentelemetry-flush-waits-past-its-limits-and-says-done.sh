#!/usr/bin/env bash
# opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http 1.45.2, seen 2026-11-30 on Python 3.11.
#
# Expected, of a collector that takes a connection and never answers: BatchSpanProcessor gives an export up after
# `export_timeout_millis`, and `force_flush(1000)` returns False after a second.
# Seen: neither limit has an effect. The flush blocks until the exporter's own `timeout` (10 s by default, 3 s here) is
# over, and then returns True, although no span was exported. So a process that flushes or shuts down at its end needs
# a short `timeout` of the exporter (OTEL_EXPORTER_OTLP_TIMEOUT), and cannot learn from the flush what was lost.
#
# Output:
#   flush(1000): True after 3 s, collector answered 0 requests
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
cat >"$folder/seen.py" <<'PY'
import socket, threading, time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

silent = socket.create_server(("127.0.0.1", 0))
taken = []


def accept():
    while True:
        taken.append(silent.accept())


threading.Thread(target=accept, daemon=True).start()
exporter = OTLPSpanExporter(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", timeout=3)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=500))
with provider.get_tracer("seen").start_as_current_span("one"):
    pass
began = time.monotonic()
done = provider.force_flush(1000)
took = time.monotonic() - began
assert taken, "the exporter connects"
print(f"flush(1000): {done} after {'3 s' if 2.5 < took < 30 else f'{took:.1f} s'}, collector answered 0 requests")
PY
timeout 90 "$folder/venv/bin/python" "$folder/seen.py" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
flush(1000): True after 3 s, collector answered 0 requests
SEEN
