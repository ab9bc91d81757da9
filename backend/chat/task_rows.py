"""How a task is read: the columns that every statement of `tasks.py` answers with, and the one parser of its rows."""

from __future__ import annotations

from typing import Any

from backend.chat.models import ContextPart, Json, Task, TaskError, TaskKind, TaskStatus, TurnRequest, Usage
from backend.ids import ExecutorId, OperationId, SessionId, StreamId, TaskId, UserId
from backend.postgres import Row

COLUMNS = """t.id, t.number, t.session_id, t.user_id, t.kind, t.status, t.active_session_id, t.attempt, t.crashes,
  t.owner, t.cancel_requested_at, t.checkpoint, t.steps, t.request, t.error, t.tool_name, t.operation_id,
  t.created_at, t.started_at, t.finished_at"""

SUMS = """coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
  coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
  coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning_tokens,
  coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens"""


def reading(statement: str, order: str = "t.number") -> str:
    """The tasks that a statement (with alias t) selects or returns, each with the tokens it has used."""
    return f"""
WITH t AS ({statement})
SELECT {COLUMNS}, used.*
FROM t CROSS JOIN LATERAL (SELECT {SUMS} FROM usage WHERE task_id = t.id) AS used
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
    )


def parse_usage(row: Row) -> Usage:
    return Usage(row["input_tokens"], row["output_tokens"], row["reasoning_tokens"], row["cached_tokens"])


def request_json(request: TurnRequest) -> Json:
    context = request.context
    return {
        "text": request.text,
        "message_id": request.message_id,
        "context": None if context is None else {"url": context.url, "content": context.content},
        "is_user_message": request.is_user_message,
        "revises": request.revises,
    }


def parse_request(document: dict[str, Any]) -> TurnRequest:
    """The reverse of `request_json`; what a newer version added is ignored."""
    context: dict[str, Any] | None = document.get("context")
    return TurnRequest(
        text=document.get("text"),
        message_id=document.get("message_id"),
        context=None if context is None else ContextPart(context.get("url"), context.get("content")),
        is_user_message=document.get("is_user_message", True),
        revises=document.get("revises"),
    )
