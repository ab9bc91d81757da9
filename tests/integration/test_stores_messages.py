from __future__ import annotations

import asyncio

import pytest

from backend.chat.models import (
    ContextPart,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.part_json import parse_parts, parts_json
from backend.chat.store import branches, messages
from backend.chat.store.sessions import get_session
from backend.errors import Fenced
from backend.ids import new_session_id, new_task_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, text_message
from tests.speed import limit

PARTS: tuple[Part, ...] = (
    TextPart("line\u2028separator, ü, 🙂"),
    ReasoningPart("hm", signature="sig=="),
    ReasoningPart("", redacted="blob"),
    ToolCallPart("call-1", "search", {"z": 1, "a": [None, True, 2.5], "m": {"b": 1, "a": 2}}),
    ToolCallPart("call-2", "search", "{not json"),
    ToolResultPart("call-1", "search", {"type": "error", "message": "no"}, is_error=True),
    ToolResultPart("call-2", "search", None),
    ContextPart("https://example.org", None),
    SourcePart("s1", "https://example.org/", "A page"),
    SourcePart("s2", "https://example.org/2"),
)


async def test_a_message_is_read_as_it_was_written(c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    [written] = await messages.append_messages(
        c, session_id, task.id, 0, [NewMessage(Role.USER, PARTS)], message_ids=["client-1"]
    )
    assert await messages.messages_of_task(c, task.id) == [written]
    assert (written.session_id, written.sequence, written.task_id, written.step) == (session_id, 1, task.id, 0)
    assert (written.role, written.parts, written.message_id) == (Role.USER, PARTS, "client-1")
    call = written.parts[3]
    assert isinstance(call, ToolCallPart)
    assert list(call.input) == ["z", "a", "m"], "the input keeps the order of its keys"


def test_a_part_of_an_unknown_type_is_left_out() -> None:
    stored = [*parts_json(PARTS), {"type": "hologram", "data": 1}]
    assert parse_parts(stored) == PARTS


async def test_characters_that_postgres_cannot_store_are_replaced_in_a_message(c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    output = {"type": "web_fetch", "text": "a\0b\ud800c", "big": 2**70, "escaped": "\\u0000"}
    await messages.append_messages(
        c, session_id, task.id, 1, [NewMessage(Role.TOOL, (ToolResultPart("call", "web_fetch", output),))]
    )
    [row] = await messages.messages_of_task(c, task.id)
    [part] = row.parts
    assert isinstance(part, ToolResultPart)
    assert part.output["text"] == "a\ufffdb\ufffdc"
    assert part.output["escaped"] == "\\u0000"
    assert part.output["big"] == 2**70


async def test_rows_of_a_step_keep_their_order_and_only_the_first_has_the_client_id(c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    await messages.append_messages(c, session_id, task.id, 0, [text_message("q")])
    new = [text_message("a", Role.ASSISTANT), text_message("b", Role.TOOL), text_message("c", Role.TOOL)]
    written = await messages.append_messages(c, session_id, task.id, 1, new, message_ids=["m"])
    assert [(row.sequence, row.text) for row in written] == [(2, "a"), (3, "b"), (4, "c")]
    assert [row.message_id for row in written] == ["m", None, None]
    assert await messages.append_messages(c, session_id, task.id, 2, []) == []


async def test_a_message_updates_the_time_of_its_session(c: Connection) -> None:
    session_id = await a_session(c)
    before = await get_session(c, session_id, NOBODY)
    await messages.append_messages(c, session_id, (await a_task(c, session_id)).id, 0, [text_message("q")])
    assert (await get_session(c, session_id, NOBODY)).updated_at > before.updated_at


async def test_a_second_write_of_a_step_is_refused_and_uses_no_sequence_number(
    database: Database, c: Connection
) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    await messages.append_messages(c, session_id, task.id, 1, [text_message("once")])
    with pytest.raises(Fenced):
        async with database.transaction() as again:
            await messages.append_messages(again, session_id, task.id, 1, [text_message("twice")])
    [after] = await messages.append_messages(c, session_id, task.id, 2, [text_message("next")])
    assert after.sequence == 2


async def test_a_message_for_a_deleted_session_is_refused(c: Connection) -> None:
    with pytest.raises(Fenced):
        await messages.append_messages(c, new_session_id(), new_task_id(), 0, [text_message("lost")])


async def test_concurrent_appends_are_numbered_without_gaps(database: Database, c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)

    async def append(step: int) -> None:
        async with database.transaction() as writer:
            await messages.append_messages(
                writer, session_id, task.id, step, [text_message(f"{step}a"), text_message(f"{step}b")]
            )

    async with asyncio.timeout(limit(30)):
        await asyncio.gather(*(append(step) for step in range(20)))
    rows = await messages.visible_messages(c, session_id, limit=100)
    assert [row.sequence for row in rows] == list(range(1, 41))
    assert all(a.step == b.step for a, b in zip(rows[::2], rows[1::2], strict=True)), (
        "the rows of a commit stay together"
    )


async def test_messages_are_paged_backwards_and_shown_forwards(c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    for step in range(5):
        await messages.append_messages(c, session_id, task.id, step, [text_message(str(step))])
    newest = await messages.visible_messages(c, session_id, limit=2)
    assert [row.sequence for row in newest] == [4, 5]
    older = await messages.visible_messages(c, session_id, limit=2, before=newest[0].sequence)
    assert [row.sequence for row in older] == [2, 3]


async def test_a_running_answer_is_left_out_and_its_question_is_not(c: Connection) -> None:
    session_id = await a_session(c)
    first, running = await a_task(c, session_id, active=False), await a_task(c, session_id)
    for task in (first, running):
        await messages.append_messages(c, session_id, task.id, 0, [text_message("question")])
        await messages.append_messages(c, session_id, task.id, 1, [text_message("answer", Role.ASSISTANT)])
    shown = await messages.visible_messages(c, session_id, limit=10, without_task=running.id)
    assert [(row.sequence, row.text) for row in shown] == [(1, "question"), (2, "answer"), (3, "question")]


async def test_superseded_rows_are_kept_and_no_longer_shown(c: Connection) -> None:
    session_id = await a_session(c)
    first, edit = await a_task(c, session_id, active=False), await a_task(c, session_id)
    await messages.append_messages(c, session_id, first.id, 0, [text_message("teh")], message_ids=["m1"])
    await messages.append_messages(c, session_id, first.id, 1, [text_message("what?", Role.ASSISTANT)])
    await branches.begin_at(c, edit, 0)
    assert await branches.make_current(c, session_id, 0, edit.id)
    await messages.append_messages(c, session_id, edit.id, 0, [text_message("the")], message_ids=["m1"])
    assert [row.text for row in await messages.visible_messages(c, session_id, limit=10)] == ["the"]
    assert len(await messages.messages_of_task(c, first.id)) == 2
    found = await messages.find_user_message(c, session_id, "m1")
    assert found is not None
    assert found.sequence == 3


async def test_the_last_user_message_is_found_up_to_a_sequence_number(c: Connection) -> None:
    session_id = await a_session(c)
    assert await messages.last_user_message(c, session_id) is None
    for turn in range(2):
        task = await a_task(c, session_id, active=turn == 0)
        for step, role in enumerate([Role.USER, Role.ASSISTANT]):
            said = [text_message("x", role)]
            await messages.append_messages(c, session_id, task.id, step, said, message_ids=[f"m{2 * turn + step}"])
    last, before = (
        await messages.last_user_message(c, session_id),
        await messages.last_user_message(c, session_id, at_or_before=2),
    )
    assert (last and last.sequence, before and before.sequence) == (3, 1)
    assert await messages.find_user_message(c, session_id, "m1") is None, (
        "the row of an assistant is not a user message"
    )
    assert await messages.find_user_message(c, session_id, "m9") is None
