#!/usr/bin/env bash
# openai 3.54.0 with its aiohttp extra (aiohttp 3.14.5), and anthropic 2.12.0, seen 2026-11-30 on Python 3.11.
#
# Expected: a server that closes the connection without an answer is an APIConnectionError that is no timeout.
# Seen: openai's DefaultAioHttpClient reports it as an APITimeoutError, at once, because its transport maps every
# aiohttp.ClientConnectionError to httpx2.ConnectTimeout. anthropic's copy of the same transport reports
# APIConnectionError, as does openai with its default client. Only the chain of causes tells the two apart.
#
# Output:
#   openai, default: APIConnectionError, timeout: False
#   openai, aiohttp: APITimeoutError, timeout: True
#   anthropic, aiohttp: APIConnectionError, timeout: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  'openai[aiohttp]==3.54.0' 'anthropic[aiohttp]==2.12.0' aiohttp==3.14.5 2>/dev/null
cat >"$folder/seen.py" <<'PY'
import asyncio
import anthropic
import openai

async def hang_up(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.close()

def messages(client):
    return client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])

def completions(client):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])

async def main():
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    common = {"api_key": "k", "base_url": url, "max_retries": 0, "timeout": 20}
    for name, sdk, ask, client in (
        ("openai, default", openai, completions, openai.AsyncOpenAI(**common)),
        ("openai, aiohttp", openai, completions,
         openai.AsyncOpenAI(**common, http_client=openai.DefaultAioHttpClient())),
        ("anthropic, aiohttp", anthropic, messages,
         anthropic.AsyncAnthropic(**common, http_client=anthropic.DefaultAioHttpClient())),
    ):
        async with client:
            try:
                await ask(client)
            except sdk.APIConnectionError as error:
                print(f"{name}: {type(error).__name__}, timeout: {isinstance(error, sdk.APITimeoutError)}")
    server.close()

asyncio.run(main())
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
openai, default: APIConnectionError, timeout: False
openai, aiohttp: APITimeoutError, timeout: True
anthropic, aiohttp: APIConnectionError, timeout: False
SEEN
