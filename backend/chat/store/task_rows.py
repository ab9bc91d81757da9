"""The columns that every statement of `tasks.py` returns, and the one parser of these rows."""

from __future__ import annotations

from typing import Any, get_args

from backend.chat.models import (
    AnswerEnd,
    ContextPart,
    DataPart,
    FilePart,
    FinishReason,
    Json,
    ModelChoice,
    Task,
    TaskError,
    TaskKind,
    TaskStatus,
    TurnRequest,
    Usage,
)
from backend.chat.part_json import parse_parts, parts_json
from backend.ids import ExecutorId, OperationId, SessionId, StreamId, TaskId, UserId
from backend.postgres import Row

COLUMNS = """t.id, t.number, t.session_id, t.user_id, t.kind, t.status, t.active_session_id, t.attempt, t.crashes,
  t.owner, t.cancel_requested_at, t.checkpoint, t.steps, t.request, t.error, t.tool_name, t.operation_id,
  t.created_at, t.started_at, t.finished_at, t.answer_end"""

BRIEF_COLUMNS = COLUMNS.replace(
    "t.request,", "t.request - '{context,data,metadata,instructions,order}'::text[] AS request,"
)
"""COLUMNS without the members of a request that take much room and that no list of tasks shows."""

AGE = "coalesce(extract(epoch FROM clock_timestamp() - t.started_at), 0)::float8 AS age"
"""Seconds since the first claim, by the clock of Postgres alone."""

SUMS = """coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
  coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
  coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning_tokens,
  coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens"""


_ANSWERED = """(array_agg(model ORDER BY step DESC) FILTER (WHERE model IS NOT NULL))[1] AS model,
  jsonb_agg(jsonb_build_array(currency, cost)) FILTER (WHERE cost IS NOT NULL) AS costs"""
USED = f"(SELECT {SUMS}, {_ANSWERED} FROM usage WHERE task_id = t.id AND step > 0)"
"""The tokens of a task, the model that answered last, and the costs of its steps. Steps below 0 came after its end."""


STEERS = """SELECT FROM tasks AS w WHERE w.session_id = t.session_id AND w.status = 'queued'
  AND w.active_session_id IS NULL AND w.attempt = 0 AND w.cancel_requested_at IS NULL AND w.request->>'steers' = t.id"""
"""The messages that wait until the task `t` takes them in."""

STEERED = f", EXISTS ({STEERS}) AS steered"


def with_usage(statement: str, order: str = "t.number", *, more: str = "") -> str:
    """Returns a statement that adds to each row of `statement` the tokens that its task has used, and `more` columns.

    `statement` selects or returns COLUMNS, with `t` as the alias of the tasks.
    """
    return f"""
WITH t AS ({statement})
SELECT {COLUMNS}, {AGE}, used.*{more}
FROM t CROSS JOIN LATERAL {USED} AS used
ORDER BY {order}"""


def parse_task(row: Row) -> Task:
    checkpoint: str | None = row["checkpoint"]
    error: dict[str, str] | None = row["error"]
    return Task(
        id=TaskId(row["id"]),
        number=row["number"],
        session_id=SessionId(row["session_id"]),
        user_id=None if row["user_id"] is None else UserId(row["user_id"]),
        kind=TaskKind(row["kind"]),
        status=TaskStatus(row["status"]),
        active=row["active_session_id"] is not None,
        attempt=row["attempt"],
        crashes=row["crashes"],
        owner=None if row["owner"] is None else ExecutorId(row["owner"]),
        cancel_requested=row["cancel_requested_at"] is not None,
        checkpoint=None if checkpoint is None else StreamId.parse(checkpoint),
        steps=row["steps"],
        request=parse_request(row["request"]),
        usage=parse_usage(row),
        error=None if error is None else TaskError(error["code"], error["message"]),
        tool_name=row["tool_name"],
        operation_id=None if row["operation_id"] is None else OperationId(row["operation_id"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        age=row["age"],
        steered=row.get("steered", False),
        answer_end=parse_answer_end(row["answer_end"]),
    )


def answer_end_json(end: AnswerEnd) -> Json:
    """Returns the members that differ from their defaults."""
    explanation = {} if end.explanation is None else {"explanation": end.explanation}
    return {"reason": end.reason, **explanation, **({"refused": True} if end.refused else {})}


def parse_answer_end(document: dict[str, Any] | None) -> AnswerEnd | None:
    """Parses the JSON of `answer_end_json`. A reason that only a newer version knows becomes `other`."""
    if document is None:
        return None
    reason: FinishReason = document["reason"] if document.get("reason") in get_args(FinishReason) else "other"
    return AnswerEnd(reason, document.get("explanation"), document.get("refused") is True)


def parse_usage(row: Row) -> Usage:
    """Parses a row with the columns of USED."""
    cost: dict[str, float] = {}
    for currency, amount in row["costs"] or ():
        cost[currency] = cost.get(currency, 0) + amount
    tokens = (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"], row["cached_tokens"])
    return Usage(*tokens, row["model"], cost)


def request_json(request: TurnRequest) -> Json:
    context = request.context
    return {
        "text": request.text,
        "message_id": request.message_id,
        "context": None if context is None else {"url": context.url, "content": context.content},
        "is_user_message": request.is_user_message,
        "revises": request.revises,
        "data": parts_json(request.data),
        "metadata": request.metadata,
        "instructions": request.instructions,
        **({"files": parts_json(request.files)} if request.files else {}),
        **({"temporary": True} if request.temporary else {}),
        **({"takes_questions": True} if request.takes_questions else {}),
        **({"claims": dict(request.claims)} if request.claims else {}),
        "model": request.choice.model,
        "effort": request.choice.effort,
        "parent": request.parent,
        "branches": request.branches,
        **({"page_tools": list(request.page_tools)} if request.page_tools else {}),
        **({"steers": request.steers} if request.steers is not None else {}),
    }


def parse_request(document: dict[str, Any]) -> TurnRequest:
    """Parses what `request_json` made. Ignores members that a newer version has added."""
    context: dict[str, Any] | None = document.get("context")
    return TurnRequest(
        text=document.get("text"),
        message_id=document.get("message_id"),
        context=None if context is None else ContextPart(context.get("url"), context.get("content")),
        is_user_message=document.get("is_user_message", True),
        revises=document.get("revises"),
        data=tuple(part for part in parse_parts(document.get("data") or ()) if isinstance(part, DataPart)),
        metadata=document.get("metadata"),
        files=tuple(part for part in parse_parts(document.get("files") or ()) if isinstance(part, FilePart)),
        instructions=document.get("instructions"),
        temporary=document.get("temporary") is True,
        takes_questions=document.get("takes_questions") is True,
        claims=tuple((document.get("claims") or {}).items()),
        choice=ModelChoice(document.get("model"), document.get("effort")),
        parent=document.get("parent"),
        branches=document.get("branches", False),
        page_tools=tuple(document.get("page_tools") or ()),
        steers=TaskId(document["steers"]) if document.get("steers") else None,
    )
