"""CPU time per delta from the bytes of a provider to events. Usage: python -m bench.models

The input is canned bytes in network chunks of one event or of 16 KiB. For comparison, the streams of the SDKs read
the same bytes through the same in-memory transport.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import httpx2
import openai

from backend.chat.models import NewMessage, Role, TextPart
from executor.llm.anthropic import AnthropicModel
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.body_reader import Read, read_from
from executor.llm.events import TextDelta
from executor.llm.model import Model, Prompt
from executor.llm.openai import OpenAIModel
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.retrying import Decoder, ModelCallLimits, stream_events
from executor.llm.scripted import ScriptedModel

DELTAS = 20_000
PROMPT = Prompt("Be kind.", (NewMessage(Role.USER, (TextPart(f"/stream {DELTAS}"),)),))


def openai_bytes() -> list[bytes]:
    head = {"id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion.chunk", "created": 1741569952,
            "model": "gpt-6-sol", "service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}  # fmt: skip
    choices = [{"index": 0, "delta": {"content": "word "}, "logprobs": None, "finish_reason": None}]
    delta = f"data: {json.dumps({**head, 'choices': choices})}\n\n".encode()
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [delta] * DELTAS + [f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode()]


def anthropic_bytes() -> list[bytes]:
    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()

    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [], "usage": usage}
    delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "word "})
    return [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *[delta] * DELTAS,
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 9}),
        event("message_stop"),
    ]


def responses_bytes() -> list[bytes]:
    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, 'sequence_number': 1, **fields})}\n\n".encode()

    item = {"id": "msg_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b", "type": "message", "role": "assistant"}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    done = {**item, "status": "completed", "content": [{"type": "output_text", "text": "word", "annotations": []}]}
    response = {"id": "r", "object": "response", "status": "completed", "output": [done], "usage": None}
    return [
        event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []}),
        *[event("response.output_text.delta", **at, delta="word ", logprobs=[], obfuscation="aN5uTzvkXm")] * DELTAS,
        event("response.output_item.done", output_index=0, item=done),
        event("response.completed", response=response),
    ]


def joined(pieces: list[bytes], size: int) -> list[bytes]:
    whole = b"".join(pieces)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


class Canned(httpx2.AsyncBaseTransport):
    """A transport that answers every request with the same bytes."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(self._pieces))


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


async def run_model(model: Model) -> int:
    return sum([isinstance(event, TextDelta) async for event in model.stream(PROMPT)])


async def run_parser(pieces: list[bytes], decoder: Callable[[], Decoder]) -> int:
    """Runs parser, decoder and retries without the SDK. Returns the number of text deltas."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Read]:
        yield read_from(_Stream(pieces).__aiter__())

    return sum(
        [isinstance(event, TextDelta) async for event in stream_events(connect, decoder, openai, ModelCallLimits())]
    )


async def run_openai_sdk(client: openai.AsyncOpenAI) -> int:
    stream = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    return len([chunk async for chunk in stream if chunk.choices and chunk.choices[0].delta.content])


async def run_responses_sdk(client: openai.AsyncOpenAI) -> int:
    stream = await client.responses.create(model="m", input="x", stream=True)
    return len([event async for event in stream if event.type == "response.output_text.delta"])


async def run_anthropic_sdk(client: anthropic.AsyncAnthropic) -> int:
    messages: Any = [{"role": "user", "content": "x"}]
    stream = await client.messages.create(model="m", max_tokens=9, messages=messages, stream=True)
    return len([event async for event in stream if event.type == "content_block_delta"])


async def measure(name: str, run: Callable[[], Awaitable[int]], rounds: int = 3) -> None:
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        count = await run()
        best = min(best, time.process_time() - began)
        assert count == DELTAS, count
    print(f"{name:57} {best / DELTAS * 1e6:8.1f} {DELTAS / best:12,.0f}")


async def main() -> None:
    print(f"{'path':57} {'us/delta':>8} {'deltas/s':>12}")
    await measure("scripted", partial(run_model, ScriptedModel()))
    makers = {"openai": OpenAIDecoder, "responses": ResponsesDecoder, "anthropic": AnthropicDecoder}
    canned = {"openai": openai_bytes(), "responses": responses_bytes(), "anthropic": anthropic_bytes()}
    for provider, pieces in canned.items():
        decoder = partial(makers[provider], set())
        for label, chunks in (("one event per chunk", pieces), ("16 KiB per chunk", joined(pieces, 16_384))):
            await measure(f"{provider}, {label}: parser and decoder only", partial(run_parser, chunks, decoder))
            http = httpx2.AsyncClient(transport=Canned(chunks))
            if provider != "anthropic":
                client = openai.AsyncOpenAI(api_key="k", http_client=http)
                responses = provider == "responses"
                model: Model = OpenAIModel(client, "m", ModelCallLimits(), "m", official=True, responses=responses)
                sdk: Callable[[], Awaitable[int]] = partial(run_responses_sdk if responses else run_openai_sdk, client)
            else:
                other = anthropic.AsyncAnthropic(api_key="k", http_client=http)
                model = AnthropicModel(other, "m", ModelCallLimits(), "m")
                sdk = partial(run_anthropic_sdk, other)
            await measure(f"{provider}, {label}: with the SDK's transport", partial(run_model, model))
            await measure(f"{provider}, {label}: the SDK's own stream", sdk, rounds=1)


if __name__ == "__main__":
    asyncio.run(main())
