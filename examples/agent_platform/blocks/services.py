"""Blocks that use services: web pages and the language model."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins, as_text
from examples.agent_platform.blocks.texts import MAX_TEXT
from examples.agent_platform.pages import text_of_html


class RequestPins(Pins):
    url: str = Field(max_length=2_000, pattern=r"^https?://[^\s/]")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    body: Any = Field(None, description="A text, or a value that is sent as JSON")


async def _request(pins: RequestPins, context: Context) -> Outputs:
    headers, body = dict(pins.headers), None
    if pins.body is not None:
        body = as_text(pins.body).encode()
        if not isinstance(pins.body, str) and not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "application/json"
    answer = await context.services.web.send(pins.method, pins.url, headers, body)
    outputs: Outputs = {"status": answer.status, "body": answer.text, "text": answer.text}
    if answer.content_type == "text/html":
        outputs["text"] = text_of_html(answer.text)
    elif answer.content_type.endswith(("/json", "+json")):
        try:
            outputs["json"] = orjson.loads(answer.text)
        except orjson.JSONDecodeError:
            raise BlockFailed("the server's answer is not the JSON that it says it is") from None
    if answer.status >= 400:
        return {"status": answer.status, "error": f"the server answered {answer.status}"}
    return outputs


class WritePins(Pins):
    instruction: str = Field(min_length=1, max_length=20_000, description="What the model does")
    input: str = Field("", max_length=4 * MAX_TEXT, description="The text that it does it with")


async def _write(pins: WritePins, context: Context) -> Outputs:
    return {"result": await context.services.model.write(pins.instruction, pins.input)}


HTTP_REQUEST = Block(
    "HTTP Request",
    "Sends a request to a public web server. An answer of 400 or more fires only status and error.",
    ("web",),
    RequestPins,
    {
        "status": {"type": "integer"},
        "text": {"type": "string", "description": "The visible text of a page, or the body"},
        "body": {"type": "string"},
        "json": {"description": "The value, if the answer is JSON"},
        "error": {"type": "string"},
    },
    _request,
    idempotent=False,
    repeatable=lambda pins: pins.method in ("GET", "HEAD"),
)
AI_TEXT = Block(
    "AI Text Generator",
    "Has the language model write a text. Without a configured model, a script answers.",
    ("ai", "text"),
    WritePins,
    {"result": {"type": "string"}},
    _write,
)
