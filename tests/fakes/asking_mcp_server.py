"""`python -m tests.fakes.asking_mcp_server [PORT]`: an MCP server made with the SDK whose tools ask the user.

With OLDER in its environment it speaks 2025-11-25: `book` and `connect` ask while their calls wait. Otherwise it
speaks 2026-07-28: `reserve` and `link` end their calls with questions. `MARKS` names a file in which they note what
they got.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    METHOD_NOT_FOUND,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
    RequestParams,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel, Field

LINK = "https://bank.example.com/connect?id=7"
FORM = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "title": "City", "minLength": 2, "default": "Rome"},
        "mail": {"type": "string", "format": "email"},
        "class": {"type": "string", "oneOf": [{"const": "e", "title": "Economy"}, {"const": "b", "title": "Business"}]},
        "meals": {"type": "array", "items": {"type": "string", "enum": ["vegan", "fish"]}, "maxItems": 1},
    },
    "required": ["city"],
}
server = MCPServer("asking", log_level="ERROR")
tellers: set[asyncio.Task[None]] = set()


class Trip(BaseModel):
    city: Annotated[str, Field(title="City", min_length=2)] = "Rome"
    people: int | None = None


@server.tool()
def ready() -> str:
    """Asks nothing."""
    return "ready"


@server.tool()
async def book(ctx: Context[Any], days: int) -> str:
    """Books a trip, whose city the user is asked."""
    note(f"called {days}")
    answer = await ctx.elicit(f"Where do you go for {days} days?", Trip)
    words = f"{answer.action} {answer.data.model_dump(exclude_none=True) if answer.action == 'accept' else ''}".strip()
    note(words)
    return words


@server.tool()
async def connect(ctx: Context[Any], url: str = LINK, visited: bool = False) -> str:
    """Has the user open a link. `visited`: tells a moment later that the user has been there."""
    if visited:
        tellers.add(asyncio.create_task(_tell_visit(ctx)))
    answer = await ctx.elicit_url("Connect your bank.", url, "elicitation-1")
    return answer.action


@server.tool()
async def sign(ctx: Context[Any]) -> str:
    """Cannot run before the user has opened a link."""
    if "signed" in Path(os.environ["MARKS"]).read_text().split():
        return "signed"
    note("signed")
    data = {"elicitations": [{"mode": "url", "elicitationId": "s", "url": LINK, "message": "Sign first."}]}
    raise MCPError(code=-32042, message="This needs a signature.", data=data)


@server.tool()
async def sign_all(ctx: Context[Any], links: list[str]) -> str:
    """Cannot run before the user has opened these links. Runs the second time that it is called with them."""
    mark = f"signed-{'-'.join(links)}"
    if mark in Path(os.environ["MARKS"]).read_text().split():
        return "all signed"
    note(mark)
    asked = [{"mode": "url", "elicitationId": url, "url": url, "message": f"Sign {url}."} for url in links]
    raise MCPError(code=-32042, message="This needs signatures.", data={"elicitations": asked})


@server.tool()
async def reserve(ctx: Context[Any], days: int) -> str | InputRequiredResult:
    """Asks the user in the form of 2026-07-28."""
    given = ctx.input_responses
    note(f"called {days} {ctx.request_state}")
    if given is None:
        asked = ElicitRequestFormParams(message=f"Where for {days} days?", requested_schema=FORM)
        return InputRequiredResult(input_requests={"trip": ElicitRequest(params=asked)}, request_state="the state")
    answer = given["trip"]
    assert isinstance(answer, ElicitResult)
    note(f"{answer.action} {answer.content}")
    return f"{answer.action} {answer.content or ''}".strip()


server.tool(name="confirm")(reserve)


@server.tool()
async def link(ctx: Context[Any]) -> str | InputRequiredResult:
    """Asks the user to open a link and to answer a form, in the form of 2026-07-28."""
    if ctx.input_responses is None:
        first = ElicitRequest(params=ElicitRequestURLParams(message="Connect your bank.", url=LINK))
        schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}}
        second = ElicitRequest(params=ElicitRequestFormParams(message="Sure?", requested_schema=schema))
        return InputRequiredResult(input_requests={"bank": first, "sure": second})
    return " ".join(f"{key}={getattr(one, 'action', one)}" for key, one in sorted(ctx.input_responses.items()))


@server.tool()
async def think(ctx: Context[Any], about: str, times: int = 1) -> str:
    """Asks the model, in the older protocol."""
    message = SamplingMessage(role="user", content=TextContent(text=about))
    said = ""
    for _ in range(times):
        with warnings.catch_warnings(action="ignore"):  # sampling is deprecated since 2026-07-28
            result = await ctx.session.create_message(messages=[message], max_tokens=50)
        said = f"{result.content.text} ({result.stop_reason})"  # type: ignore[union-attr]
    return said


@server.tool()
async def ponder(ctx: Context[Any], about: str) -> str | InputRequiredResult:
    """Asks the model and for the roots, in the form of 2026-07-28."""
    given = ctx.input_responses
    if given is None:
        message = SamplingMessage(role="user", content=TextContent(text=about))
        thought = CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=50))
        return InputRequiredResult(input_requests={"thought": thought, "roots": ListRootsRequest()})
    roots = len(given["roots"].roots)  # type: ignore[union-attr]
    return f"{roots} {given['thought'].content.text}"  # type: ignore[union-attr]


@server.tool()
async def folders(ctx: Context[Any]) -> list[str]:
    """Returns the roots of the client, in the older protocol, and the folder of this process."""
    with warnings.catch_warnings(action="ignore"):  # roots are deprecated since 2026-07-28
        listed = await ctx.session.list_roots()
    return [*(str(root.uri) for root in listed.roots), Path.cwd().as_uri()]


@server.tool()
async def again(ctx: Context[Any]) -> InputRequiredResult:
    """Asks for nothing but its own state, for ever."""
    note("again")
    return InputRequiredResult(request_state="more")


def note(word: str) -> None:
    if "MARKS" in os.environ:
        with Path(os.environ["MARKS"]).open("a") as marks:
            marks.write(f"{word}\n")


async def _tell_visit(ctx: Context[Any]) -> None:
    await asyncio.sleep(0.3)
    await ctx.session.send_elicit_complete("elicitation-1")


async def _no_discovery(*_: Any) -> Any:
    raise MCPError(code=METHOD_NOT_FOUND, message="Method not found")


def _refuse_discovery() -> None:
    """Answers the first line as an older server does, since the SDK would keep to the protocol of that line."""
    asked = json.loads(sys.stdin.buffer.readline())
    error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)


if __name__ == "__main__":
    older = "OLDER" in os.environ
    if sys.argv[1:]:
        if older:
            server._lowlevel_server.add_request_handler("server/discover", RequestParams, _no_discovery)
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        if older:
            _refuse_discovery()
        server.run()
