"""The pages that tools have read, which the answer after them names as its sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from backend.chat.models import Message, NewMessage, Role, ToolResultPart
from executor.llm.events import Source
from executor.llm.sources import find_source


def pages_read(rows: Sequence[Message | NewMessage]) -> Iterator[Source]:
    """Yields the pages in the results since the model's last response. They are stored, so a takeover names them, too.

    What the user has said since then stands among them, or behind them.
    """
    last = list(takewhile(lambda row: row.role is not Role.ASSISTANT, reversed(rows)))
    for row in reversed(last):
        for part in row.parts:
            if isinstance(part, ToolResultPart) and (source := _page_of(part)) is not None:
                yield source


def _page_of(result: ToolResultPart) -> Source | None:
    output = result.output
    if not isinstance(output, dict) or output.get("type") != "web_fetch" or result.tool_name != "web_fetch":
        return None
    status = output.get("status_code")
    return find_source(output) if isinstance(status, int) and status < 400 else None
