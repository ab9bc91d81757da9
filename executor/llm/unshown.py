"""Events of a model call that show the user nothing by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from executor.llm.events import (
    ModelEvent,
    ReasoningEnd,
    Source,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    UsageSoFar,
)


class HeldBackEvents:
    """Holds back the events of an attempt that are not shown, until an event follows that is shown.

    Reasoning without a text (signed, redacted, encrypted) and sources are held back until then. An attempt that fails
    before has shown nothing, so the call may be repeated, or another model may answer. Blank text at the beginning of a
    part is held back until the part goes on, and dropped if it does not: models write blanks between two items.
    """

    def __init__(self) -> None:
        self.shown = False
        """True after the first event that is shown, or the end of the answer."""
        self._held: list[ModelEvent] = []
        self._blank: list[ModelEvent] = []
        self._in_text = False

    def take(self, event: ModelEvent) -> Sequence[ModelEvent]:
        """Returns the events to pass on now."""
        kind = type(event)
        if kind is TextDelta:
            if not self._in_text and event.text.isspace():  # type: ignore[union-attr]
                self._blank.append(event)
                return ()
            if self._in_text:
                return (event,)
            self._in_text = True
        elif kind is UsageSoFar or kind is ToolCallDelta or kind is ToolCallEnd:
            return (event,)
        elif kind is Source:
            return self._pass_or_hold(event)
        else:
            self._in_text = False
            self._blank.clear()
            if kind is ReasoningEnd:
                return self._pass_or_hold(event)
        released = (*self._held, *self._blank, event)
        self._held.clear()
        self._blank.clear()
        self.shown = True
        return released

    def _pass_or_hold(self, event: ModelEvent) -> Sequence[ModelEvent]:
        if self.shown:
            return (event,)
        self._held.append(event)
        return ()
