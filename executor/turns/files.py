"""Reads the files of a prompt, just before the model is asked. Files that were used lately stay in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from backend.chat.models import NewMessage, Part, PromptFile, TextPart
from backend.chat.resources import Resources
from backend.chat.store.attachments import files
from backend.errors import ServerBusy, Unavailable, UnreadableFile
from backend.files.kinds import Kind, kind_of
from backend.files.storage import ObjectGone
from backend.ids import FileId, SessionId
from executor.llm.files import MOST_BYTES, line_of, with_text
from executor.llm.model import Prompt
from executor.slots import NoSlot, Slots

KEPT_BYTES = 67_108_864
"""Bytes of the files that one executor keeps: the steps of a turn read the same ones."""
LOADED_WITHIN = 45.0
"""Seconds in which all files of a prompt are read. Those that are not read by then become lines."""
MOST_IN_PROMPTS = 4 * MOST_BYTES
"""Bytes of the files in all prompts of one executor. While a model answers, its client keeps the request, which makes
that five times as much (measured with 20 MB at both SDKs): 400 MB of the 1 GiB that a container has.
"""
ROOM_WITHIN = 60.0
"""Seconds that a prompt waits until others have left room for its files. Without room, they become lines."""
logger = logging.getLogger(__name__)


class FileCache:
    """Contents of files, as bytes or text, by their ids. The least recently used ones are dropped first.

    `room` is that for the files in the prompts of one executor. Its slots are bytes.
    """

    def __init__(self, most: int = KEPT_BYTES, in_prompts: int = MOST_IN_PROMPTS) -> None:
        self.room = Slots(in_prompts, wait=ROOM_WITHIN)
        self._most = most
        self._size = 0
        self._kept: OrderedDict[tuple[FileId, bool], bytes] = OrderedDict()

    def find(self, id: FileId, *, as_text: bool) -> bytes | None:
        if (id, as_text) not in self._kept:
            return None
        self._kept.move_to_end((id, as_text))
        return self._kept[id, as_text]

    def keep(self, id: FileId, data: bytes, *, as_text: bool) -> None:
        self._size += len(data) - len(self._kept.pop((id, as_text), b""))
        self._kept[id, as_text] = data
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1])


@dataclass(slots=True)
class _Asked:
    """The requests of one prompt to the storage: their deadline, and whether one has failed."""

    until: float
    in_vain: bool = False


class PromptFiles:
    """Reads the files of one conversation's prompts. Once the storage has failed, a prompt asks for no more of them.

    `owner` is the user, or the session of an anonymous one: prompts of one owner leave room to those of others.
    """

    def __init__(self, resources: Resources, cache: FileCache, session_id: SessionId, owner: str) -> None:
        self._resources = resources
        self._cache = cache
        self._session_id = session_id
        self._owner = owner

    @asynccontextmanager
    async def loaded(self, prompt: Prompt) -> AsyncIterator[Prompt]:
        """Yields the prompt with its files, for which there is room while the block runs.

        A file that cannot be read, or that gets no room, becomes a line with its name.
        """
        planned = [part for message in prompt.messages for part in message.parts if isinstance(part, PromptFile)]
        if not planned:
            yield prompt
            return
        async with AsyncExitStack() as stack:
            try:
                room = self._cache.room.slot(self._owner, size=_room_for(planned))
                await stack.enter_async_context(room)
            except NoSlot:
                logger.warning("files of a prompt have found no room", extra={"session": self._session_id})
                yield replace(prompt, messages=[_without_files(message) for message in prompt.messages])
                return
            yield await self._load(prompt, planned)

    async def _load(self, prompt: Prompt, planned: Sequence[PromptFile]) -> Prompt:
        async with self._resources.database.connection() as c:
            kept = await files.link_keys(c, self._session_id, [one.file.file_id for one in planned])
        asked = _Asked(asyncio.get_running_loop().time() + LOADED_WITHIN)
        messages = [await self._with_files(message, kept.keys(), asked) for message in prompt.messages]
        return replace(prompt, messages=messages)

    async def _with_files(self, message: NewMessage, kept: Container[FileId], asked: _Asked) -> NewMessage:
        parts: list[Part] = []
        for part in message.parts:
            if not isinstance(part, PromptFile):
                parts.append(part)
            elif part.file.file_id not in kept:
                parts.append(TextPart(line_of(part.file, "deleted")))
            else:
                parts.append(await self._read(part, asked))
        return replace(message, parts=tuple(parts))

    async def _read(self, part: PromptFile, asked: _Asked) -> Part:
        id = part.file.file_id
        try:
            data = self._cache.find(id, as_text=part.as_text)
            if data is None:
                data = await self._fetched(part, asked)
                self._cache.keep(id, data, as_text=part.as_text)
        except (ObjectGone, Unavailable, UnreadableFile, ServerBusy, TimeoutError) as error:
            asked.in_vain = asked.in_vain or isinstance(error, Unavailable | TimeoutError)
            logger.warning("a file could not be read for a prompt", extra={"file": id, "error": type(error).__name__})
            return TextPart(line_of(part.file, "which could not be read"))
        if part.as_text:
            return with_text(part, data.decode("utf-8", "replace"))
        return replace(part, data=data)

    async def _fetched(self, part: PromptFile, asked: _Asked) -> bytes:
        if asked.in_vain:
            raise Unavailable
        async with asyncio.timeout_at(asked.until):
            data = await self._resources.files.get(part.file.file_id)
            is_text = not part.as_text or kind_of(part.file.media_type) is Kind.TEXT
            return data if is_text else await self._resources.file_reader.text_of(data)


def _room_for(planned: Sequence[PromptFile]) -> int:
    """Returns the bytes that the files take: those that are sent, and the largest one that is only read for text."""
    texts = [one.file.size for one in planned if one.as_text]
    return max(1, sum(one.file.size for one in planned if not one.as_text) + max(texts, default=0))


def _without_files(message: NewMessage) -> NewMessage:
    why = "which was not read: the server has no room for it now"
    parts = [TextPart(line_of(part.file, why)) if isinstance(part, PromptFile) else part for part in message.parts]
    return replace(message, parts=tuple(parts))
