"""A page of a conversation's messages, in the form that a client asked for, bounded in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import orjson

from backend.api.file_links import link_to
from backend.api.message_rows import message_rows
from backend.chat.models import Json, Message, Role, Task, TaskKind, Usage
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS
from backend.chat.protocol.ui_messages import UITurn, ui_turns
from backend.chat.store import operations, tasks
from backend.chat.store.alternatives import (
    Alternatives,
    Following,
    alternatives_of,
    answers_without_messages,
    following,
)
from backend.chat.store.attachments import files
from backend.chat.store.conversations.feedback import feedback_of
from backend.chat.store.history_pages import PAGE_BYTES, SHORTEST_CUT, earlier_messages_of_task, newest_messages
from backend.ids import FileId, SessionId, TaskId
from backend.postgres import Connection


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The messages, in order. `first` is the sequence with which they begin, or None if there are none.

    `older`: there are messages before them. `branches`: their alternatives, which are incomplete while tasks are
    `orphans` (`Following`).
    """

    messages: list[Json]
    first: int | None
    older: bool
    branches: Sequence[Alternatives] = ()
    orphans: bool = False


_AFTER_ALL = 2**31 - 1
"""A sequence that no message has."""
_Render: TypeAlias = Callable[[Sequence[Message], int], list[UITurn]]
"""Renders rows as the items of a page, which are never split. Cuts outputs of tools to that number of characters."""


async def read_history(
    c: Connection, session_id: SessionId, active: Task | None, *, ui: bool, limit: int, before: int | None
) -> HistoryPage:
    """Returns the newest messages before `before`, as rows or UIMessages, without the answer of the `active` task.

    They come from at most `limit` rows and have at most PAGE_BYTES as JSON. If one message alone has more, its outputs
    are cut until it fits. A message whose other parts have more is returned alone.
    """
    hidden = active.id if active is not None else None
    newest = await newest_messages(c, session_id, limit=limit, before=before, without_task=hidden)
    rows, added = await _with_whole_beginning(c, newest.rows, active) if ui else (newest.rows, False)
    near = await following(c, session_id, rows)
    silent = await answers_without_messages(c, session_id)
    links = await _links_in(c, session_id, rows)
    render: _Render
    if ui:
        answering_again = before is None and active is not None and active.request.text is None
        render = await _ui_renderer(c, rows, near, silent, links, answering_again=answering_again)
    else:
        used = await tasks.usage_of_steps(c, list(dict.fromkeys(row.task_id for row in rows)))
        render = partial(_row_by_row, used, links)
    is_whole = added and (rows[0].sequence == 1 or near.parents.get(rows[0].task_id) == 0)
    page = _fitted(rows, render, older=newest.older and not is_whole)
    kept = [row for row in rows if page.first is not None and row.sequence >= page.first]
    return replace(page, branches=alternatives_of(kept, near, silent), orphans=near.orphans)


def _row_by_row(
    used: Mapping[tuple[TaskId, int], Usage], links: Mapping[FileId, str], rows: Sequence[Message], most: int
) -> list[UITurn]:
    return [UITurn(row.sequence, message_rows([row], most, used=used, links=links)) for row in rows]


async def _links_in(c: Connection, session_id: SessionId, rows: Sequence[Message]) -> dict[FileId, str]:
    """Returns links to the files of these messages, without those that were deleted."""
    shown = {file.file_id: file for row in rows for file in row.files}
    if not shown:
        return {}
    keys = await files.link_keys(c, session_id, list(shown))
    return {id: link_to(shown[id], key) for id, key in keys.items()}


async def _with_whole_beginning(c: Connection, rows: list[Message], active: Task | None) -> tuple[list[Message], bool]:
    """Adds the rows of the first task that the page cut off, because a UI message holds all rows of its task.

    Returns all rows, and whether rows were added.
    """
    if not rows or (active is not None and rows[0].task_id == active.id):
        return rows, False
    earlier = await earlier_messages_of_task(c, rows[0].task_id, rows[0].sequence)
    return [*earlier, *rows], bool(earlier)


async def _ui_renderer(
    c: Connection,
    rows: Sequence[Message],
    near: Following,
    silent: Mapping[int, Task],
    links: Mapping[FileId, str],
    *,
    answering_again: bool,
) -> _Render:
    task_ids: list[TaskId] = list(dict.fromkeys(row.task_id for row in rows))
    found = await tasks.find_tasks(c, task_ids, brief=True)
    begun = [task.id for task in found if task.kind is TaskKind.OPERATION]
    most = min(MAX_OUTPUT_CHARS, 4 * PAGE_BYTES // max(1, len(begun)))
    known = await operations.shown_operations(c, begun, most=most)
    rated = await feedback_of(c, [*task_ids, *(task.id for task in silent.values())])
    said = {id: {"rating": one.rating, "comment": one.comment} for id, one in rated.items()}
    of_tasks = {task.id: task for task in found}
    elsewhere = {row.sequence for row in rows if row.role is Role.USER and near.is_answered(row)}

    def render(rows: Sequence[Message], most: int) -> list[UITurn]:
        return ui_turns(
            rows,
            of_tasks,
            silent,
            known,
            answering_again=answering_again,
            answered_elsewhere=elsewhere,
            most=most,
            links=links,
            feedback=said,
        )

    return render


async def hidden_messages(c: Connection, task_id: TaskId) -> list[Json]:
    """Returns the messages of a task that may be on another branch than the current one, as UIMessages."""
    rows = await earlier_messages_of_task(c, task_id, _AFTER_ALL)
    render = await _ui_renderer(c, rows, Following({}, {}), {}, {}, answering_again=False)
    return [message for turn in render(rows, MAX_OUTPUT_CHARS) for message in turn.messages]


def _fitted(rows: Sequence[Message], render: _Render, *, older: bool) -> HistoryPage:
    shown = render(rows, MAX_OUTPUT_CHARS)
    kept = _newest_that_fit(shown)
    if not kept:
        return HistoryPage([], None, older=False)
    first, most = kept[0].sequence, MAX_OUTPUT_CHARS
    rows_of_kept = [row for row in rows if row.sequence >= first]
    while _size(kept) > PAGE_BYTES and most > SHORTEST_CUT:
        most //= 2
        kept = render(rows_of_kept, most)
    return HistoryPage([one for turn in kept for one in turn.messages], first, older or len(kept) < len(shown))


def _newest_that_fit(shown: Sequence[UITurn]) -> list[UITurn]:
    """Returns the last turns that have at most PAGE_BYTES together, or the last one alone if it has more."""
    room, place = PAGE_BYTES, len(shown)
    while place > 0 and (room := room - _size(shown[place - 1 : place])) >= 0:
        place -= 1
    return list(shown[min(place, len(shown) - 1) :]) if shown else []


def _size(turns: Sequence[UITurn]) -> int:
    return sum(len(orjson.dumps(message)) + 1 for turn in turns for message in turn.messages)
