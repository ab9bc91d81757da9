"""Reads the files of a prompt, just before the model is asked. Files that were used lately stay in memory."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import OrderedDict
from dataclasses import replace

from backend.chat.models import NewMessage, Part, PromptFile, TextPart
from backend.chat.resources import Resources
from backend.chat.store.attachments import files
from backend.errors import ServerBusy, Unavailable, UnreadableFile
from backend.files.kinds import Kind, kind_of
from backend.files.storage import ObjectGone
from backend.ids import FileId, SessionId
from executor.llm.files import line_of, with_text
from executor.llm.model import Prompt

KEPT_BYTES = 67_108_864
"""Bytes of the files that one executor keeps: the steps of a turn read the same ones."""
logger = logging.getLogger(__name__)


class FileCache:
    """Contents of files, as bytes or text, by their ids; those that were used least lately go first."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
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


class PromptFiles:
    """Reads the files of one conversation's prompts."""

    def __init__(self, resources: Resources, cache: FileCache, session_id: SessionId) -> None:
        self._resources = resources
        self._cache = cache
        self._session_id = session_id

    async def load(self, prompt: Prompt) -> Prompt:
        """Returns the prompt with its files. A file that cannot be read becomes a line with its name."""
        planned = [part for message in prompt.messages for part in message.parts if isinstance(part, PromptFile)]
        if not planned:
            return prompt
        async with self._resources.database.connection() as c:
            kept = await files.link_keys(c, self._session_id, [one.file.file_id for one in planned])
        return replace(prompt, messages=[await self._with_files(message, kept.keys()) for message in prompt.messages])

    async def _with_files(self, message: NewMessage, kept: object) -> NewMessage:
        parts: list[Part] = []
        for part in message.parts:
            if not isinstance(part, PromptFile):
                parts.append(part)
            elif part.file.file_id not in kept:  # type: ignore[operator]
                parts.append(TextPart(line_of(part.file, "deleted")))
            else:
                parts.append(await self._read(part))
        return replace(message, parts=tuple(parts))

    async def _read(self, part: PromptFile) -> Part:
        id = part.file.file_id
        try:
            data = self._cache.find(id, as_text=part.as_text)
            if data is None:
                data = await self._resources.files.get(id)
                if part.as_text and kind_of(part.file.media_type) is Kind.PDF:
                    data = await self._text_of_pdf(data)
                self._cache.keep(id, data, as_text=part.as_text)
        except (ObjectGone, Unavailable, UnreadableFile, ServerBusy) as error:
            logger.warning("a file could not be read for a prompt", extra={"file": id, "error": type(error).__name__})
            return TextPart(line_of(part.file, "which could not be read"))
        if part.as_text:
            return with_text(part, data.decode("utf-8", "replace"))
        return replace(part, data=data)

    async def _text_of_pdf(self, data: bytes) -> bytes:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(data)
            given.flush()
            await self._resources.file_reader.read_pdf(given, out)
            out.seek(0)
            return await asyncio.to_thread(out.read)
