"""The history of a task for its prompts: the rows of its branch, of which a summary may stand for the older ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backend.chat.models import (
    SUMMARY_NOTICE,
    DataPart,
    Message,
    ReasoningPart,
    Role,
    SummaryPart,
    Task,
    TaskStatus,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.store import branches, tasks
from backend.chat.store.derived import summaries
from backend.chat.store.derived.summaries import Summary
from backend.ids import TaskId
from backend.postgres import Connection
from executor.turns.refused import without_refused

HISTORY_ROWS = 2_000
HISTORY_STEP = 500
"""Rows by which the beginning of a long history moves at a time, so that providers can cache prompts."""
FEWEST_ROWS = 4
"""The fewest rows of a conversation with a summary: an exchange that it replaces, and one that follows."""


@dataclass(frozen=True, slots=True)
class History:
    """The rows of a task's branch in order, its own last, without exchanges that a provider refused.

    `places` are the sequences of all rows of the branch. `summary` is the last one on the branch, or None. `stopped`
    are the tasks of the session that failed or were cancelled, if there are rows of other tasks.
    """

    rows: list[Message]
    places: list[int]
    summary: Summary | None
    stopped: Mapping[TaskId, TaskStatus] = field(default_factory=dict)

    @property
    def newer(self) -> list[Message]:
        """The rows that no summary stands for."""
        return self.rows if self.summary is None else [row for row in self.rows if row.sequence > self.summary.through]

    def prompt_rows(self, newer: Sequence[Message]) -> list[Message]:
        """Returns the rows of a prompt that ends with `newer`: the summary, the calls that it does not cover, and
        `newer`.
        """
        if self.summary is None:
            return list(newer)
        older = [row for row in self.rows if row.sequence <= self.summary.through]
        return [*_instead_of(older, self.summary), *newer]

    @property
    def notice(self) -> DataPart | None:
        """The notice of the summary for an answer. None if an answer on this branch has it."""
        summary = self.summary
        if summary is None:
            return None
        data = {"messages": summary.messages, "text": summary.text}
        notice = DataPart(SUMMARY_NOTICE, data, f"{SUMMARY_NOTICE}-{summary.through}")
        return None if any(part == notice for row in self.newer for part in row.parts) else notice


async def read_history(c: Connection, task: Task, *, summarised: bool) -> History:
    """Reads the history of a running or ended task. Without `summarised`, it has no summary."""
    rows = await branches.history_of(c, task, limit=HISTORY_ROWS)
    places = [row.sequence for row in rows]
    looked_for = summarised and len(rows) >= FEWEST_ROWS
    summary = await summaries.newest_summary(c, task.session_id, places) if looked_for else None
    is_first = all(row.task_id == task.id for row in rows)
    unanswered = tasks.Unanswered() if is_first else await tasks.unanswered_tasks(c, task.session_id)
    kept = without_refused(from_a_fixed_step(rows) if summary is None else rows, unanswered.refused)
    return History(kept, places, summary, unanswered.stopped)


def from_a_fixed_step(rows: list[Message]) -> list[Message]:
    """Returns the rows of a long history from a multiple of HISTORY_STEP on."""
    if len(rows) < HISTORY_ROWS:
        return rows
    first = -(-rows[0].sequence // HISTORY_STEP) * HISTORY_STEP
    return [row for row in rows if row.sequence >= first]


def _instead_of(older: Sequence[Message], summary: Summary) -> Iterator[Message]:
    """Yields the summary as a message of the user, and the calls that it does not cover, with their results."""
    if not older or summary.text is None:
        return
    yield replace(older[-1], role=Role.USER, step=0, parts=(SummaryPart(summary.text),), message_id=None)
    for row in older:
        left = [part for part in row.parts if isinstance(part, ToolCallPart | ToolResultPart)]
        if left := [part for part in left if part.tool_call_id in summary.calls]:
            thoughts = [part for part in row.parts if isinstance(part, ReasoningPart)]  # some providers want them back
            yield replace(row, parts=(*thoughts, *left))
