"""What the outcome of an operation becomes: a tool response, and an agent in the library when one came with it.

An outcome is data of unknown origin: it is checked, bounded and stored, and never followed.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from backend.chat.agent_json import AgentGraph, parse_agent, redacted
from backend.chat.library import get_agent, save_agent
from backend.chat.models import Json
from backend.chat.outcomes import EXPIRED, Operation, Outcome, ToolWork, Use
from backend.chat.outputs import is_too_deep, safe_json
from backend.chat.tool_responses import (
    AgentPreview,
    AgentSaved,
    AnyToolResponse,
    BlockOutput,
    ClarificationNeeded,
    ErrorResponse,
    NeedLogin,
    ToolResponse,
)
from backend.errors import AgentNotFound, InvalidAgent
from backend.ids import GraphId, TaskId, UserId
from backend.postgres import Connection

COMPLETED: Json = {"status": "completed"}
"""The result of a success that brought none."""
_FAILED = "The work could not be done."
_NO_AGENT = "The answer of the agent generator holds no agent."
_MAX_WORDS = 2_000
_CODE = re.compile(r"[a-z][a-z_]{2,40}")
_TYPED = re.compile(rf"({_CODE.pattern}_(?:error|limit|unavailable|response)|timeout): (.*)", re.DOTALL)
_responses: TypeAdapter[AnyToolResponse] = TypeAdapter(AnyToolResponse, config=ConfigDict(defer_build=True))


async def result_of(c: Connection, operation: Operation, outcome: Outcome) -> Json:
    """The tool response that the outcome becomes, as it is stored. Saves an agent, in the caller's transaction."""
    response = await _response_to(c, operation, outcome)
    response = response.model_copy(update={"session_id": operation.session_id})
    document: Json = safe_json(response.model_dump(mode="json", exclude_none=True))
    return document


async def _response_to(c: Connection, operation: Operation, outcome: Outcome) -> ToolResponse:
    if not outcome.success:
        return _failure(outcome)
    if operation.work.use is Use.TOOL_OUTPUT:
        return _tool_output(operation.work, outcome.result)
    return await _agent(c, operation, outcome.result)


def _failure(outcome: Outcome) -> ErrorResponse:
    """What went wrong, in the service's words; what it says beside them only where it is short. The type of an error
    stands in the result, or before the words: `validation_error: It has no nodes.`"""
    if outcome == EXPIRED:
        return ErrorResponse(message=outcome.error or "", error="operation_timeout")
    said = outcome.result if isinstance(outcome.result, dict) else {}
    code, words = said.get("error_type"), outcome.error or ""
    if (typed := _TYPED.fullmatch(words)) is not None:
        code, words = code or typed[1], typed[2]
    known = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    return ErrorResponse(
        message=words.strip()[:_MAX_WORDS] or _FAILED,
        error=known or "operation_failed",
        error_type=known,
        details=redacted(said["details"]) if _is_short(said.get("details")) else None,
    )


def _is_short(value: Json) -> bool:
    return value is not None and len(json.dumps(value)) <= _MAX_WORDS


def _tool_output(work: ToolWork, result: Json) -> ToolResponse:
    """A tool response stays what it is, but for what only we say, of operations; all else is an output."""
    if isinstance(result, dict) and not str(result.get("type", "operation_")).startswith("operation_"):
        with suppress(ValidationError):
            return _responses.validate_python(result)
    return BlockOutput(
        message="The work is done.",
        block_id=work.tool_name,
        outputs=COMPLETED if result is None else result,
    )


# --- agents -------------------------------------------------------------------------------------------------------


async def _agent(c: Connection, operation: Operation, result: Json) -> ToolResponse:
    if isinstance(result, str):
        try:
            result = orjson.loads(result)  # unlike json: what Postgres takes, and gives back
        except orjson.JSONDecodeError:
            return ErrorResponse(message=_NO_AGENT, error="invalid_response")
    if not isinstance(result, dict) or is_too_deep(result):
        return ErrorResponse(message=_NO_AGENT, error="invalid_response")
    if result.get("type") == "clarifying_questions":
        return questions_in(result)
    document = result.get("agent_json", result if "nodes" in result else None)
    return await agent_response(c, document, operation.work, operation.user_id, operation.task_id)


async def agent_response(
    c: Connection, document: Json, work: ToolWork, user_id: UserId | None, task_id: TaskId
) -> ToolResponse:
    """Saves the agent of a service's answer, or shows it, as the call asked for."""
    kept = GraphId(work.graph_id) if work.graph_id is not None else None  # a changed agent stays the one it was
    try:
        graph = parse_agent(document, graph_id=kept)
    except InvalidAgent as error:
        return ErrorResponse(
            message="The agent that was made is not valid, so it was not saved.",
            error="validation_error",
            details={"problems": error.problems[:20], "agent_json": redacted(document)},
        )
    if work.use is Use.SHOW_AGENT:
        return preview_of(graph)
    if user_id is None:
        return NeedLogin(message="Sign in to keep agents in your library.")
    if kept is not None and not await _is_there(c, user_id, kept):
        return ErrorResponse(message="The agent was deleted meanwhile; nothing was saved.", error="agent_not_found")
    saved = await save_agent(c, user_id, graph, task_id=task_id)
    return AgentSaved(
        message=f"The agent “{graph.name}” is in your library.",
        agent_id=saved.agent.graph_id,
        agent_name=graph.name,
        library_agent_id=saved.agent.id,
        library_agent_link=saved.agent.library_link,
        agent_page_link=saved.agent.page_link,
    )


async def _is_there(c: Connection, user_id: UserId, graph_id: GraphId) -> bool:
    try:
        await get_agent(c, user_id, graph_id)
    except AgentNotFound:
        return False
    return True


def preview_of(graph: AgentGraph) -> AgentPreview:
    return AgentPreview(
        message=f"This is the agent “{graph.name}”; it is not saved.",
        agent_json=graph.document,
        agent_name=graph.name,
        description=graph.description,
        node_count=graph.node_count,
        link_count=graph.link_count,
    )


def questions_in(answer: Json) -> ToolResponse:
    """The questions that a service wants answered before it can go on."""
    try:
        return ClarificationNeeded.model_validate(
            {"message": "A few questions first.", "questions": _known_keys(answer.get("questions"))}
        )
    except ValidationError:
        return ErrorResponse(message=_NO_AGENT, error="invalid_response")


def _known_keys(questions: Json) -> Json:
    if not isinstance(questions, list):
        return questions
    wanted = ("question", "keyword", "example")
    return [{k: q[k] for k in wanted if k in q} if isinstance(q, dict) else q for q in questions[:20]]


def note_for(operation: Operation, outcome: Outcome) -> str:
    """What the model is told when its operation has ended; the result stands in its place in the history."""
    work = operation.work
    how = "has ended well" if outcome.success else "has failed"
    return (
        f"The operation behind the call {work.tool_call_id} of the tool {work.tool_name} {how}; its result is the "
        f"output of that call by now. Tell the user what came of it, in the language of the "
        "conversation; if it failed, say why and what can be done. Do not call the tool again unless the user asks."
    )
