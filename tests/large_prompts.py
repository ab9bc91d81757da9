"""Asks a server with several prompts at once, each with a PDF of 20 MB of another user, and prints the most memory of
this process in MB, before and after: `python -m tests.large_prompts URL PROMPTS`.

The storage and the rows are replaced; what reads files, makes room for them and asks the model is not.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

from backend.chat.models import FilePart, NewMessage, PromptFile, Role
from backend.chat.store.attachments import files
from backend.config import Settings
from backend.ids import FileId, SessionId
from executor.llm.files import MOST_BYTES
from executor.llm.model import Prompt
from executor.llm.openai import open_openai
from executor.turns.files import FileCache, PromptFiles


def most_mb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


async def link_keys(_: Any, __: SessionId, ids: list[FileId]) -> dict[FileId, str]:
    return dict.fromkeys(ids, "key")


@asynccontextmanager
async def connection() -> Any:
    yield None


async def get(_: FileId) -> bytes:
    return os.urandom(MOST_BYTES)


async def main(url: str, prompts: int) -> None:
    files.link_keys = link_keys  # type: ignore[assignment]
    resources: Any = SimpleNamespace(
        database=SimpleNamespace(connection=connection), files=SimpleNamespace(get=get), file_reader=None
    )
    cache, settings = FileCache(), Settings(_env_file=None, chat_base_url=url, chat_model="m")  # type: ignore[call-arg]
    async with open_openai(settings, "m") as model:

        async def ask(number: int) -> None:
            file = FilePart(FileId(f"file{number}"), "application/pdf", "a.pdf", MOST_BYTES)
            prompt = Prompt("", [NewMessage(Role.USER, (PromptFile(file, 1_000),))])
            reader = PromptFiles(resources, cache, SessionId("session"), f"user:{number}")
            async with reader.loaded(prompt) as loaded, aclosing(model.stream(loaded)) as events:
                async for _ in events:
                    pass

        before = most_mb()
        await asyncio.gather(*map(ask, range(prompts)))
    print(before, most_mb())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
