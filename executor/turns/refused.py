"""Exchanges that a model's provider refused, which are left out of later prompts.

Anthropic, "Handle streaming refusals": after a refusal the context must be reset, "attempting to continue without
resetting will result in continued refusals". The same is true of a prompt that a content filter refuses as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from backend.chat.models import Message, NotePart, Role
from backend.ids import TaskId

NOTE = "The user's message that stood here, and its answer, are left out: the model's provider refused them."


def without_refused(rows: Sequence[Message], refused: Collection[TaskId]) -> list[Message]:
    """Returns the rows with a note in place of each refused exchange. The last exchange, which runs now, stays.

    A question belongs to the task that answered it last, which may be a regeneration.
    """
    if not refused:
        return list(rows)
    kept: list[Message] = []
    exchanges = exchanges_of(rows)
    for exchange in exchanges[:-1]:
        question = exchange[0]
        answered_by = exchange[-1].task_id
        if answered_by not in refused:
            kept += exchange
        elif question.role is Role.USER:
            kept.append(replace(question, parts=(NotePart(NOTE),)))
    return kept + (exchanges[-1] if exchanges else [])


def exchanges_of(rows: Sequence[Message]) -> list[list[Message]]:
    """Returns the rows in groups, each of which begins with a message of the user, except perhaps the first one."""
    exchanges: list[list[Message]] = []
    for row in rows:
        if row.role is Role.USER or not exchanges:
            exchanges.append([])
        exchanges[-1].append(row)
    return exchanges
