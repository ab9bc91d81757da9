"""The title of a session, made from the user's first message while the first turn runs."""

from __future__ import annotations

import asyncio
import contextlib

from backend.chat.models import Task, Usage
from backend.chat.protocol.chunks import Data
from backend.chat.resources import Resources
from backend.chat.store import sessions, tasks
from backend.chat.streams.event_feed import Hint
from backend.chat.streams.writer import StreamWriter
from backend.errors import AttemptEnded
from executor.turns.context import ExecutorContext

TITLE_LIMIT = 0.25
"""Seconds that the end of a turn waits for the title, so that readers of the turn's stream still receive it."""


class SessionTitle:
    """A side job that names the session after `text`. Pages and readers of the turn's stream receive the title."""

    def __init__(
        self, resources: Resources, context: ExecutorContext, task: Task, text: str, writer: StreamWriter
    ) -> None:
        self._resources = resources
        self._context = context
        self._task = task
        self._writer = writer
        self._stream_ends = False
        self._job = context.start_side_job(self._run(text))

    async def leave_stream(self) -> None:
        """Waits up to TITLE_LIMIT for the title. On return the title is no longer written to the stream."""
        await asyncio.wait({self._job}, timeout=TITLE_LIMIT)
        self._stream_ends = True

    async def _run(self, text: str) -> None:
        title, usage = await self._context.title_of(text)
        changed = await self._store(title, usage)
        if changed:
            self._resources.feed.publish(Hint.TITLE_CHANGED, self._task.session_id, self._task.user_id, title=title)
        if changed and not self._stream_ends:
            with contextlib.suppress(AttemptEnded):
                await self._writer.append(Data("title", {"title": title}, transient=True))

    async def _store(self, title: str, usage: Usage) -> bool:
        """Returns False if the session has a title, or is gone."""
        database, session = self._resources.database, self._task.session_id
        if not usage.total_tokens:
            async with database.connection() as c:
                return await sessions.set_title(c, session, title, only_if_untitled=True)
        async with database.transaction() as c:
            await sessions.lock_session(c, session)  # first, as every transaction that writes rows of tasks
            await tasks.add_later_usage(c, self._task.id, usage)
            return await sessions.set_title(c, session, title, only_if_untitled=True)
