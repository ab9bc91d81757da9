"""Turns the outcome of an operation into a tool response, and saves the agent that may come with it.

An outcome is untrusted data. It is checked, limited in size and stored; nothing in it is treated as an instruction.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from backend.chat.flows.run_results import run_response
from backend.chat.models import Json, is_too_deep
from backend.chat.outcomes import AGENT_PLATFORM, EXPIRED, Operation, Outcome, ResultUse, ToolWork
from backend.chat.protocol.agent_changes import changes_between
from backend.chat.protocol.agent_json import AgentGraph, parse_agent, redacted
from backend.chat.protocol.tool_outputs import safe_json
from backend.chat.protocol.tool_responses import (
    AgentPreview,
    AgentSaved,
    AnyToolResponse,
    BlockOutput,
    ClarificationNeeded,
    ErrorResponse,
    NeedLogin,
    ToolResponse,
    UserAnswered,
)
from backend.chat.questions import Question, QuestionKind
from backend.chat.store.library import SavedAgent, get_agent, get_version, save_agent
from backend.errors import AgentNotFound, InvalidAgent, TooManyAgents
from backend.ids import GraphId, UserId
from backend.postgres import Connection

COMPLETED: Json = {"status": "completed"}
"""The result of a successful outcome that has none."""
_FAILED = "The operation failed."
_NO_AGENT = "The agent generator's answer contains no agent."
_MAX_CHARS = 2_000
MAX_SCHEMA_CHARS = 4_000
"""Characters of an agent's input schema that a response repeats."""
_CODE = re.compile(r"[a-z][a-z_]{2,40}")
_TYPED = re.compile(rf"({_CODE.pattern}_(?:error|limit|unavailable|response)|timeout): (.*)", re.DOTALL)
_responses: TypeAdapter[AnyToolResponse] = TypeAdapter(AnyToolResponse, config=ConfigDict(defer_build=True))


async def result_of(c: Connection, operation: Operation, outcome: Outcome, *, most_agents: int) -> Json:
    """Returns the tool response as it is stored. Saves an agent that came with it, in the caller's transaction.

    A user who has `most_agents` gets no new one: the response then has the agent, which is not saved.
    """
    response = await _response_to(c, operation, outcome, most_agents)
    response = response.model_copy(update={"session_id": operation.session_id})
    document: Json = safe_json(response.model_dump(mode="json", exclude_none=True))
    return document


async def _response_to(c: Connection, operation: Operation, outcome: Outcome, most_agents: int) -> ToolResponse:
    if operation.work.asks is not None and (outcome.success or outcome == EXPIRED):
        return _answered(operation.work, operation.work.asks, outcome)
    if operation.work.remote == AGENT_PLATFORM and outcome != EXPIRED:
        return run_response(operation.work, outcome)
    if not outcome.success:
        return _failure(outcome)
    if operation.work.use is ResultUse.TOOL_OUTPUT:
        return _tool_output(operation.work, outcome.result)
    return await _agent(c, operation, outcome.result, most_agents)


def _failure(outcome: Outcome) -> ErrorResponse:
    """Returns the error in the service's words, with its `details` if they are short.

    The service gives the type of the error in the result or before the text: `validation_error: It has no nodes.`
    """
    if outcome == EXPIRED:
        return ErrorResponse(message=outcome.error or "", error="operation_timeout")
    document = outcome.result if isinstance(outcome.result, dict) else {}
    code, words = document.get("error_type"), outcome.error or ""
    if (typed := _TYPED.fullmatch(words)) is not None:
        code, words = code or typed[1], typed[2]
    known = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    return ErrorResponse(
        message=words.strip()[:_MAX_CHARS] or _FAILED,
        error=known or "operation_failed",
        error_type=known,
        details=redacted(document["details"]) if _is_short(document.get("details")) else None,
    )


def _answered(work: ToolWork, question: Question, outcome: Outcome) -> ToolResponse:
    """Returns the user's answer as the model gets it. An approval has none: its call runs."""
    if outcome == EXPIRED:
        return ErrorResponse(message="The user has not answered in time.", error="not_answered")
    given = outcome.result
    if question.kind is QuestionKind.PAGE_TOOL:
        return BlockOutput(message="The page has done it.", block_id=work.tool_name, outputs=given["output"])
    if question.kind is QuestionKind.APPROVAL:
        reason = f" The user says: {given['reason']}" if given.get("reason") else ""
        return ErrorResponse(message=f"The user did not allow this call, so it did not run.{reason}", error="denied")
    if given.get("dismissed"):
        return UserAnswered(message="The user has not answered this question.", dismissed=True)
    if given.get("approved"):
        return UserAnswered(message="The user opens the link.", approved=True)
    if given.get("declined"):
        return UserAnswered(message="The user does not want to answer this question.", declined=True)
    answer, order = given["answer"], question.property_order
    if order is not None and isinstance(answer, dict):
        answer = {name: answer[name] for name in order if name in answer}
    words = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return UserAnswered(message=f"The user answered: {words}", answer=answer, property_order=order)


def _is_short(value: Json) -> bool:
    return value is not None and len(json.dumps(value)) <= _MAX_CHARS


def _tool_output(work: ToolWork, result: Json) -> ToolResponse:
    """Keeps a result that is a valid tool response; wraps any other result as an output.

    A service may not send the `operation_...` responses, which only this server gives.
    """
    if isinstance(result, dict) and not str(result.get("type", "operation_")).startswith("operation_"):
        with suppress(ValidationError):
            return _responses.validate_python(result)
    return BlockOutput(
        message="The work is done.",
        block_id=work.tool_name,
        outputs=COMPLETED if result is None else result,
    )


# --- agents -------------------------------------------------------------------------------------------------------


async def _agent(c: Connection, operation: Operation, result: Json, most_agents: int) -> ToolResponse:
    if isinstance(result, str):
        try:
            result = orjson.loads(result)  # unlike json, gives only values that Postgres can store and return
        except orjson.JSONDecodeError:
            return ErrorResponse(message=_NO_AGENT, error="invalid_response")
    if not isinstance(result, dict) or is_too_deep(result):
        return ErrorResponse(message=_NO_AGENT, error="invalid_response")
    if result.get("type") == "clarifying_questions":
        return questions_in(result)
    document = result.get("agent_json", result if "nodes" in result else None)
    return await _agent_response(c, document, operation, most_agents)


async def _agent_response(c: Connection, document: Json, operation: Operation, most_agents: int) -> ToolResponse:
    """Saves or shows the agent of a service's answer, as the call asked. An invalid agent becomes an error response."""
    work, user_id = operation.work, operation.user_id
    kept = GraphId(work.graph_id) if work.graph_id is not None else None  # a changed agent keeps its id
    try:
        graph = parse_agent(document, graph_id=kept)
    except InvalidAgent as error:
        return ErrorResponse(
            message="The generated agent is not valid, so it was not saved.",
            error="validation_error",
            details={"problems": error.problems[:20], "agent_json": redacted(document)},
        )
    if work.use is ResultUse.SHOW_AGENT:
        return preview_of(graph)
    if user_id is None:
        return NeedLogin(message="Sign in to save agents in your library.")
    if kept is not None and not await _is_there(c, user_id, kept):
        return ErrorResponse(
            message="The agent has been deleted in the meantime, so nothing was saved.", error="agent_not_found"
        )
    try:
        saved = await save_agent(c, user_id, graph, task_id=operation.task_id, most=most_agents)
    except TooManyAgents as error:
        return ErrorResponse(message=str(error), error=error.code, details={"agent_json": redacted(document)})
    return _saved(saved, work, await _changes(c, user_id, saved, work))


async def _changes(c: Connection, user_id: UserId, saved: SavedAgent, work: ToolWork) -> str:
    """Returns a sentence about what changed since the version that the work began with; empty for a new agent."""
    last = saved.agent.version - 1
    before = min(work.base_version or last, last)  # the agent may have been deleted and made again meanwhile
    if not before:
        return ""
    _, graph = await get_version(c, user_id, saved.agent.id, before)
    return f" Since version {before}: {changes_between(graph, saved.graph) or 'nothing changed'}."


def _saved(saved: SavedAgent, work: ToolWork, changes: str) -> AgentSaved:
    """Returns the response for a saved agent. Its message names the version and what changed, and warns if other
    versions were saved while the work ran.
    """
    base = 0 if work.graph_id is None else work.base_version  # None: the row is older than this value
    version, name = saved.agent.version, saved.agent.name
    is_next = base is None or version == base + 1
    others = "" if is_next else _without_others(version, base or 0)
    return AgentSaved(
        message=f"The agent “{name}” is in your library, as version {version}.{others}{changes}",
        version=version,
        base_version=None if is_next else base,
        agent_id=saved.agent.graph_id,
        agent_name=name,
        library_agent_id=saved.agent.id,
        library_agent_link=saved.agent.library_link,
        agent_page_link=saved.agent.page_link,
        **_inputs_of(saved.graph),
    )


def _inputs_of(graph: dict[str, Json]) -> dict[str, Any]:
    """Returns what the agent's JSON tells of its inputs, if that is short, so that the model knows their names."""
    schema = graph.get("input_schema")
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(fields, dict) or len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        return {}
    return {"input_schema": redacted(schema), "property_order": list(fields)}


def _without_others(version: int, base: int) -> str:
    if not base:
        return (
            f" An agent with the same id was there already, so this is its version {version}. The earlier versions are "
            "kept."
        )
    return (
        f" Its version {version} was made from version {base}, and the agent was changed by others in the meantime: "
        f"version {version} does not contain their changes. The other versions are kept. To have all changes, ask for "
        "the missing ones again."
    )


async def _is_there(c: Connection, user_id: UserId, graph_id: GraphId) -> bool:
    try:
        await get_agent(c, user_id, graph_id)
    except AgentNotFound:
        return False
    return True


def preview_of(graph: AgentGraph) -> AgentPreview:
    return AgentPreview(
        message=f"This is a preview of the agent “{graph.name}”. It is not saved.",
        agent_json=graph.document,
        agent_name=graph.name,
        description=graph.description,
        node_count=graph.node_count,
        link_count=graph.link_count,
    )


def questions_in(answer: Json) -> ToolResponse:
    """Returns the questions that the service needs answered before it can continue."""
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
    """Returns the note that tells the model that its operation has ended; the result is in the history by then."""
    work = operation.work
    if work.asks is not None:
        return _note_of_answer(operation, outcome)
    how = "has succeeded" if outcome.success else "has failed"
    return (
        f"The operation behind the call {work.tool_call_id} of the tool {work.tool_name} {how}; its result is the "
        f"output of that call by now. Tell the user what came of it, in the language of the "
        "conversation; if it failed, say why and what can be done. If an answer of yours has told them already, add "
        "only what is missing, in a sentence. Do not call the tool again unless the user asks."
    )


def _note_of_answer(operation: Operation, outcome: Outcome) -> str:
    work = operation.work
    behind = f"behind the call {work.tool_call_id} of the tool {work.tool_name}"
    if outcome == EXPIRED:
        return f"The question {behind} was not answered in time. Go on without an answer, or say what is missing."
    if work.asks is not None and work.asks.kind is QuestionKind.ELICITATION:
        return (
            f"The user has answered what the tool asked in the call {behind}. The call has gone on with it; its "
            "result is the output of that call. Go on with it. Do not call the tool again unless the user asks."
        )
    if operation.approved_by(outcome):
        return f"The user has allowed the call {behind}. It has run; go on with its result, the output of that call."
    if work.asks is not None and work.asks.kind is QuestionKind.APPROVAL:
        return f"The user has not allowed the call {behind}. It did not run; do not call it again unless the user asks."
    if work.asks is not None and work.asks.kind is QuestionKind.PAGE_TOOL:
        return (
            f"The user's page has carried out the call {behind}; its result is the output of that call by now. Go on."
        )
    return (
        f"The user has answered the question {behind}; the answer is the output of that call by now. Go on with it. If "
        "an answer of yours has used it already, add only what is missing."
    )
