"""Traces of turns: one trace for each task, whichever processes work on it. Nothing is traced unless a span is open.

The ids of a task's trace and of its first spans are made from the id of the task, so every process knows them. They
need no place in a queue message or a row, and a turn that is published again stays in its trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A span that is open."""

    def note(self, attributes: Attributes) -> None:
        """Adds attributes."""

    def fail(self, kind: str) -> None:
        """Marks the span as failed, with the code of the error."""


class Traces(Protocol):
    def accepted(self, task_id: str, seconds: float, attributes: Attributes) -> None:
        """Records the root span of a task that has just been accepted, in a request that took `seconds` so far."""

    def attempt(
        self, task_id: str, attempt: int, earlier: int | None, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Opens the span of an attempt, with a link to the `earlier` attempt that it continues."""

    def part(self, name: str, attributes: Attributes, *, remote: bool) -> AbstractContextManager[Span]:
        """Opens a span inside the present one. `remote`: another service does the work."""


class _NoSpan:
    def note(self, attributes: Attributes) -> None:
        pass

    def fail(self, kind: str) -> None:
        pass


_NO_SPAN = _NoSpan()
_NO_PART: AbstractContextManager[Span] = nullcontext(_NO_SPAN)
_traces: ContextVar[Traces | None] = ContextVar("traces", default=None)


def part(name: str, attributes: Attributes, *, remote: bool = False) -> AbstractContextManager[Span]:
    """Opens a span inside that of the attempt which this job works for. Does nothing if there is none."""
    traces = _traces.get()
    return _NO_PART if traces is None else traces.part(name, attributes, remote=remote)


@contextmanager
def attempt_span(
    traces: Traces | None, task_id: str, attempt: int, earlier: int | None, attributes: Attributes
) -> Iterator[Span]:
    """Opens the span of an attempt, in which `part` opens others. Does nothing without `traces`."""
    if traces is None:
        yield _NO_SPAN
        return
    token = _traces.set(traces)
    try:
        with traces.attempt(task_id, attempt, earlier, attributes) as span:
            yield span
    finally:
        _traces.reset(token)
