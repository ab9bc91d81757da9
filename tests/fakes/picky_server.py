"""Fakes of servers that refuse something in a request, in one process. The first part of the path chooses one.

Each accepts everything else, and answers as `script` says. The messages are those of the real servers, read 2026-11-30
in their sources and issue trackers: Ollama (server/routes.go), vLLM 0.12 (entrypoints/openai), llama.cpp
(tools/server), LM Studio (its bug tracker), OpenAI, Azure and Anthropic (error pages of their API references), Gemini
(ai.google.dev/api), Mistral, DeepSeek and OpenRouter (api references), FastAPI (422), nginx (pages of HTML). Here a
token is three bytes of the messages' JSON, as in `trimming.estimate_tokens`.

`no-tools-ollama`, `no-tools-vllm`, `no-tools-openrouter`, `no-system`, `html`, `plain`, `no-effort`, `no-length`,
`new-length`, `one-call`, `named-schema`, `numbered-schema`, `unnamed-schema`, `busy-schema`, `few-tools`, `cap`,
`small`, `tiny`, `roomy`, `llamacpp`, `silent-length`, `studio`, `unmarked`, `text-alone`; in Anthropic's format
`claude-display`, `claude-thinking`, `claude-system`, `claude-cache`, `claude-schema`, `claude-cap`, `claude-context`,
`claude-tools`, `claude-calls`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fakes import responses_server
from tests.fakes.anthropic_server import AnthropicWire
from tests.fakes.openai_server import OpenAIWire
from tests.fakes.script import Fake
from tests.fakes.serving import Exchange, main

FAKE = Fake()
JSON = "application/json"
Body = dict[str, Any]
Refusal = tuple[int, Any]


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Any:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def vllm_error(message: str) -> Any:
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}


def fastapi_error(*loc: Any, msg: str = "Extra inputs are not permitted") -> Any:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", *loc], "msg": msg, "input": {"tools": "system"}}]}


def anthropic_error(message: str) -> Any:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"}


def tokens(body: Body) -> int:
    """Returns the tokens of the prompt. Marks for caching cost nothing."""
    return sum(len(json.dumps(body.get(name, "")).encode()) // 3 for name in ("messages", "tools", "system"))


def length(body: Body) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)


def bad_tools(body: Body) -> list[int]:
    return [number for number, tool in enumerate(body.get("tools", ())) if "bad" in json.dumps(tool)]


# --- each returns what it refuses, or None ------------------------------------------------------------------------


def no_tools_ollama(body: Body) -> Refusal | None:
    return (400, openai_error(f"registry.ollama.ai/library/{body['model']} does not support tools")) if (
        "tools" in body) else None  # fmt: skip


def no_tools_vllm(body: Body) -> Refusal | None:
    words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    return (400, vllm_error(words)) if "tools" in body else None


def no_tools_openrouter(body: Body) -> Refusal | None:
    words = "No endpoints found that support tool use. To learn more about provider routing, visit: https://x.y/z"
    return (404, {"error": {"message": words, "code": 404}, "user_id": "u"}) if "tools" in body else None


def no_system(body: Body) -> Refusal | None:
    return (400, vllm_error("System role not supported")) if body["messages"][0]["role"] == "system" else None


def html(body: Body) -> Refusal | None:
    page = "<html><head><title>422</title></head><body><p>Unknown field: <b>stream_options</b></p></body></html>"
    return (422, page) if "stream_options" in body else None


def plain(body: Body) -> Refusal | None:
    return (400, "Unrecognized request argument supplied: stream_options") if "stream_options" in body else None


def no_effort(body: Body) -> Refusal | None:
    words = f"Unsupported value: 'reasoning_effort' does not support '{body.get('reasoning_effort')}' with this model."
    return (400, openai_error(words, "reasoning_effort", "unsupported_value")) if "reasoning_effort" in body else None


def no_length(body: Body) -> Refusal | None:
    name = next((name for name in ("max_tokens", "max_completion_tokens") if name in body), None)
    return (422, fastapi_error(name)) if name else None


def new_length(body: Body) -> Refusal | None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return (400, openai_error(words, "max_tokens", "unsupported_parameter")) if "max_tokens" in body else None


def one_call(body: Body) -> Refusal | None:
    if "parallel_tool_calls" in body:
        return 422, fastapi_error("parallel_tool_calls")
    several = any(len(message.get("tool_calls") or ()) > 1 for message in body["messages"])
    return (400, vllm_error("This model only supports single tool-calls at once!")) if several else None


def named_schema(body: Body) -> Refusal | None:
    for number in bad_tools(body):
        name = body["tools"][number]["function"]["name"]
        words = f"Invalid schema for function '{name}': schema must have type 'object' and not have 'oneOf' at the top."
        return 400, openai_error(words, f"tools[{number}].function.parameters", "invalid_function_parameters")
    return None


def numbered_schema(body: Body) -> Refusal | None:
    """Refuses as Gemini does, whose errors are a list."""
    for number in bad_tools(body):
        where = f"'tools[0].function_declarations[{number}].parameters.properties[0].value'"
        words = f'Invalid JSON payload received. Unknown name "const" at {where}: Cannot find field.'
        return 400, [{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}]
    return None


def unnamed_schema(body: Body) -> Refusal | None:
    return (400, vllm_error("Failed to compile the JSON schema")) if bad_tools(body) else None


def busy_schema(body: Body) -> Refusal | None:
    """Answers 429 to small requests with tools."""
    if "Hi" in [message["content"] for message in body["messages"]]:
        return 429, openai_error("Rate limit reached", code="rate_limit_exceeded")
    return unnamed_schema(body)


def few_tools(body: Body) -> Refusal | None:
    words = "Invalid 'tools': array too long. Expected an array with maximum length 2, but got an array with length 3."
    return (400, openai_error(words, "tools", "array_above_max_length")) if len(body.get("tools", ())) > 2 else None


def unmarked(body: Body) -> Refusal | None:
    """A strict gateway in OpenAI's format."""
    if "cache_control" in json.dumps(body):
        return 422, fastapi_error("messages", 0, "content", 0, "cache_control")
    return None


def text_alone(body: Body) -> Refusal | None:
    """A server that takes no list of blocks as content."""
    for number, message in enumerate(body["messages"]):
        if isinstance(message["content"], list):
            return 422, fastapi_error("messages", number, "content", msg="Input should be a valid string")
    return None


def cap(body: Body) -> Refusal | None:
    words = f"max_tokens is too large: {length(body)}. This model supports at most 40 completion tokens"
    return (400, openai_error(words, "max_tokens", "invalid_value")) if length(body) > 40 else None


def of_context(context: int) -> Callable[[Body], Refusal | None]:
    """Refuses as vLLM does."""

    def refuse(body: Body) -> Refusal | None:
        if tokens(body) + length(body) <= context:
            return None
        return 400, vllm_error(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{tokens(body) + length(body)} tokens ({tokens(body)} in the messages, {length(body)} in the completion). "
            "Please reduce the length of the messages or completion."
        )

    return refuse


def llamacpp(body: Body) -> Refusal | None:
    used = tokens(body)
    words = f"request ({used} tokens) exceeds the available context size (2000 tokens), try increasing it"
    error = {"code": 400, "message": words, "type": "exceed_context_size_error", "n_prompt_tokens": used, "n_ctx": 2000}
    return (400, {"error": error}) if used > 2_000 else None


def silent_length(body: Body) -> Refusal | None:
    return (400, openai_error("Input is too long for requested model.")) if tokens(body) > 2_000 else None


def studio(body: Body) -> Refusal | None:
    """Refuses as LM Studio does: after the stream has begun."""
    words = (
        f"Trying to keep the first {tokens(body)} tokens when context the overflows. However, the model is loaded with "
        "context length of only 2000 tokens, which is not enough."
    )
    return (200, {"error": {"message": words}}) if tokens(body) > 2_000 else None


def claude_display(body: Body) -> Refusal | None:
    words = "thinking.adaptive.display: Extra inputs are not permitted"
    return (400, anthropic_error(words)) if "display" in body.get("thinking", {}) else None


def claude_thinking(body: Body) -> Refusal | None:
    words = "adaptive thinking is not supported on this model"
    return (400, anthropic_error(words)) if "thinking" in body else None


def claude_calls(body: Body) -> Refusal | None:
    """Refuses thinking as if the history held a call of another model."""
    words = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`"
    return (400, anthropic_error(words)) if "thinking" in body else None


def claude_system(body: Body) -> Refusal | None:
    return (422, fastapi_error("system")) if "system" in body else None


def claude_cache(body: Body) -> Refusal | None:
    if "cache_control" in json.dumps(body):
        return 422, fastapi_error("messages", 0, "content", 0, "cache_control")
    return None


def claude_schema(body: Body) -> Refusal | None:
    for number in bad_tools(body):
        words = f"tools.{number}.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"
        return 400, anthropic_error(words)
    return None


def claude_cap(body: Body) -> Refusal | None:
    words = f"max_tokens: {length(body)} > 40, which is the maximum allowed number of output tokens for m"
    return (400, anthropic_error(words)) if length(body) > 40 else None


def claude_context(body: Body) -> Refusal | None:
    used = tokens(body)
    if used > 2_000:
        return 400, anthropic_error(f"prompt is too long: {used} tokens > 2000 maximum")
    words = f"input length and `max_tokens` exceed context limit: {used} + {length(body)} > 2000, decrease input length"
    return (400, anthropic_error(words)) if used + length(body) > 2_000 else None


def claude_tools(body: Body) -> Refusal | None:
    return (400, anthropic_error("tools: This model does not support tool use")) if "tools" in body else None


SERVERS: dict[str, Callable[[Body], Refusal | None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(no_tools_ollama, no_tools_vllm, no_tools_openrouter, no_system, html, plain, no_length, new_length, one_call),
        no_effort,
        *(named_schema, numbered_schema, unnamed_schema, busy_schema, few_tools, cap, llamacpp, silent_length, studio),
        *(unmarked, text_alone),
        *(
            claude_display,
            claude_thinking,
            claude_system,
            claude_cache,
            claude_schema,
            claude_cap,
            claude_context,
            claude_tools,
            claude_calls,
        ),
    )
} | {"small": of_context(2_000), "tiny": of_context(400), "roomy": of_context(12_000)}


async def handle(exchange: Exchange) -> None:
    if not await FAKE.remember(exchange):
        return
    body = exchange.request.json()
    server = exchange.request.path.split("/")[1]
    if server == "responses":
        await responses_server.respond(exchange, FAKE)
        return
    if refusal := SERVERS[server](body):
        status, words = refusal
        if status == 200:
            await exchange.begin_stream()
            await exchange.send(f"event: error\ndata: {json.dumps(words)}\n\n".encode())
            await exchange.end_stream()
        elif isinstance(words, str):
            kind = "text/html" if words.startswith("<") else "text/plain"
            await exchange.answer_text(status, kind, words)
        else:
            await exchange.answer(status, words)
        return
    wire = AnthropicWire(body) if server.startswith("claude") else OpenAIWire(body)
    asked = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
    if not isinstance(asked, str):
        asked = "\n".join(block["text"] for block in asked if block["type"] == "text")
    await FAKE.play(exchange, wire, asked, 0, [])


if __name__ == "__main__":
    main(handle)
