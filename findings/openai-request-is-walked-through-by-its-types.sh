#!/usr/bin/env bash
# openai 3.54.0, seen 2026-12-01 on Python 3.11.
#
# Expected: `client.chat.completions.create(messages=…)` with plain dictionaries costs about what writing their JSON costs.
# Seen: the SDK first walks through all of them with the types of each member (`async_transform`), without a pause for
# the event loop: for 2,000 short messages a hundred times as long as `json.dumps`. Nothing is changed on the way. What is
# passed as `extra_body` is sent as it is.
#
# Output (times differ):
#   the same bytes are sent: True
#   messages=: 218 ms of CPU, extra_body=: 1 ms
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0 2>/dev/null
cat >"$folder/seen.py" <<'PY'
import asyncio
import time

import httpx2
import openai

MESSAGES = [{"role": ("user", "assistant")[n % 2], "content": f"message {n}"} for n in range(2_000)]
SENT = []


class Canned(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request):
        SENT.append(request.content)
        return httpx2.Response(200, json={"id": "c", "choices": [], "created": 0, "model": "m", "object": "chat.completion"})


async def took(client, **body):
    best = 9.0
    for _ in range(5):
        begun = time.process_time()
        await client.chat.completions.create(model="m", **body)
        best = min(best, time.process_time() - begun)
    return best


async def main():
    http = httpx2.AsyncClient(transport=Canned())
    async with openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:9/v1", http_client=http) as client:
        typed = await took(client, messages=MESSAGES)
        plain = await took(client, messages=[], extra_body={"messages": MESSAGES})
    print("the same bytes are sent:", len(set(SENT)) == 1)
    print(f"messages=: {typed * 1e3:.0f} ms of CPU, extra_body=: {plain * 1e3:.0f} ms")
    assert len(set(SENT)) == 1 and typed > 4 * plain


asyncio.run(main())
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py"
