"""The memory that an executor takes for the files of prompts, and who gets it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from backend.chat.models import FilePart, NewMessage, PromptFile, Role, TextPart
from backend.ids import FileId, SessionId
from executor.llm.files import MOST_BYTES
from executor.llm.model import Prompt
from executor.slots import NoSlot, Slots
from executor.turns import files
from executor.turns.files import MOST_IN_PROMPTS, FileCache, PromptFiles
from tests.fakes.serving import Exchange, converse
from tests.speed import limit

AT_ONCE = MOST_IN_PROMPTS // MOST_BYTES
CONTAINER_MB = 1_024


async def test_prompts_with_large_files_take_a_part_of_a_container() -> None:
    """Three times as many prompts as may be asked at once; before, each of them took 105 MB until its answer ended."""
    asked, together = list[int](), asyncio.Barrier(AT_ONCE)

    async def answer(exchange: Exchange) -> None:
        asked.append(len(exchange.request.body))
        async with asyncio.timeout(limit(30)):
            await together.wait()  # so many requests are open now
        await exchange.begin_stream()
        await exchange.send(b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n')
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end_stream()

    server = await asyncio.start_server(lambda r, w: converse(answer, r, w), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        command = [sys.executable, "-m", "tests.large_prompts", url, str(3 * AT_ONCE)]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(limit(60)):
            output, _ = await child.communicate()
    assert child.returncode == 0
    before, most = map(int, output.split())
    assert len(asked) == 3 * AT_ONCE
    assert all(size > MOST_BYTES for size in asked)
    assert most - before < CONTAINER_MB * 0.6, f"{before} MB, then {most} MB"


async def test_a_prompt_without_room_names_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROOM_WITHIN", 0.01)
    cache = FileCache(in_prompts=2_000_000)
    part = PromptFile(FilePart(FileId("f"), "image/png", "cat.png", 2_000_000), 1)
    unused: Any = SimpleNamespace()
    reader = PromptFiles(unused, cache, SessionId("s"), "user:b")
    prompt = Prompt("", [NewMessage(Role.USER, (part, TextPart("what is it?")))])
    async with cache.room.slot("user:a", size=MOST_BYTES), reader.loaded(prompt) as loaded:
        line, question = loaded.messages[0].parts
    assert line == TextPart("[file cat.png, 2.0 MB, which was not read: the server has no room for it now]")
    assert question == TextPart("what is it?")
    assert not cache.room.taken


async def test_one_user_leaves_room_and_small_wishes_do_not_overtake_a_large_one() -> None:
    slots, order = Slots(10), list[str]()

    async def take(user: str, size: int) -> None:
        async with slots.slot(user, size=size):
            order.append(user)
            await asyncio.sleep(0)

    async with asyncio.timeout(limit(10)), AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(slots.slot("greedy", size=2))
        greedy = asyncio.create_task(take("greedy", 1))
        await asyncio.sleep(0)
        assert not order
        await take("modest", 2)
        large, small = asyncio.create_task(take("large", 5)), asyncio.create_task(take("small", 1))
        await asyncio.sleep(0)
        assert order == ["modest"]
        await stack.aclose()
        await asyncio.gather(greedy, large, small)
    assert order == ["modest", "greedy", "large", "small"]
    assert not slots.taken


async def test_who_waited_behind_a_large_wish_is_served_when_that_is_given_up() -> None:
    slots = Slots(10)
    async with asyncio.timeout(limit(10)), slots.slot("a", size=4):

        async def take(user: str, size: int) -> None:
            async with slots.slot(user, size=size):
                pass

        large = asyncio.create_task(take("b", 8))
        await asyncio.sleep(0)
        small = asyncio.create_task(take("c", 1))
        await asyncio.sleep(0)
        large.cancel()
        await small


async def test_a_size_above_everything_gets_the_share_of_one() -> None:
    slots = Slots(10, wait=0.01)
    async with slots.slot("a", size=1_000):
        assert slots.taken == 8
        with pytest.raises(NoSlot):
            async with slots.slot("b", size=3):
                pass
        async with slots.slot("c", size=2):
            pass
