"""Requests of MCP servers: links that may be shown, whose question it is, and slots that waiting calls lend."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitRequestURLParams, ElicitResult, ListRootsRequest

from backend.chat.models import ToolCallPart
from backend.errors import ValidationFailed
from executor.mcp.call_slots import CallSlots
from executor.mcp.elicitations import checked_url, question_of
from executor.mcp.failures import CallRefused
from executor.mcp.inputs import MAX_RESUME, Inputs, ServerRequests
from executor.mcp.live_call import CALL, MOST_REQUESTS, LendSlot, LiveCall, LiveCalls
from executor.mcp.server_entry import HttpServer, Sampling, StdioServer
from executor.tools.context import ToolContext
from tests.speed import limit
from tests.unit.test_mcp_tools import CONTEXT

SERVER = StdioServer.model_validate({"name": "bank", "command": "x", "env": {"API_KEY": "s3cr3t-0123"}})


@pytest.mark.parametrize(
    "url",
    [
        "https://bank.example/a?b=c#d", "https://BANK.example./", "https://7.example/", "https://[2001:db8::1]/",
        "https://xn--bnk-sla.example/", "http://localhost:8080/x",
        "http://127.0.0.1/", "http://[::1]:9/x",
    ],
)  # fmt: skip
def test_https_and_local_links_are_shown(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://bank.example/", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https://",
        "https://user@bank.example/", "https://good.example\\@evil.example/", "https://bänk.example/", "//bank.example",
        "https://bank.example/a b", "https://[::1", "https://bank.example:port/", "https://x.example/" + "a" * 2_048,
        "ftp://localhost/", "http://localhost.evil.example/", "https://%65vil.example/", "https://1.2.3.4.5/",
        "https://0x7f.1/", "https://2130706433/", "https://a..example/", "https://[fe80::1%25eth0]/", "https://a<b.example/",
    ],
)  # fmt: skip
def test_all_other_links_are_refused(url: str) -> None:
    with pytest.raises(ValidationFailed):
        checked_url(url)


def test_a_question_names_the_server_and_holds_no_secret_of_it() -> None:
    asked = ElicitRequestFormParams(message="Use s3cr3t-0123?\0", requested_schema={"type": "object", "properties": {}})
    question = question_of(asked, SERVER)
    assert (question.server, question.text) == ("bank", "Use [hidden]?")
    for names in ({"__proto__": {"type": "string"}}, {"a\0": {"type": "string"}}):
        with pytest.raises(ValidationFailed):
            question_of(ElicitRequestFormParams(message="", requested_schema={"properties": names}), SERVER)
    deep: Any = {"type": "string"}
    for _ in range(5_000):
        deep = {"anyOf": [deep, {"type": "null"}]}
    with pytest.raises(ValidationFailed):
        question_of(ElicitRequestFormParams(message="", requested_schema={"properties": {"x": deep}}), SERVER)


def test_what_is_asked_is_stored_as_it_is_and_not_without_bounds() -> None:
    link = ElicitRequest(params=ElicitRequestURLParams(message="m", url="https://x.example/"))
    asked = ServerRequests({"roots": ListRootsRequest(), "link": link}, "a state\0\ud800", again=True)
    assert "\0" not in asked.as_text()
    assert ServerRequests.parse(asked.as_text()) == asked
    assert asked.first == ("link", link)
    with pytest.raises(CallRefused):
        ServerRequests({"link": link}, "x" * MAX_RESUME).as_text()


def _live(session: str, lent: LendSlot = nullcontext) -> LiveCall:
    return LiveCall(session, cast(Inputs, None), lent)


def _inputs(wait: float, context: ToolContext = CONTEXT) -> Inputs:
    return Inputs(SERVER, context, ToolCallPart("call", "bank_pay", {}), wait)


def test_a_request_belongs_to_its_call_or_to_the_only_conversation_that_calls() -> None:
    calls, one, same, other = LiveCalls(), _live("a"), _live("a"), _live("b")
    assert calls.asking() is None
    calls.add(one)
    calls.add(same)
    assert calls.asking() is same
    calls.add(other)
    assert calls.asking() is None, "it must not reach another user"
    token = CALL.set(one)
    try:
        assert calls.asking() is one
        calls.end(one)
        assert calls.asking() is None
    finally:
        CALL.reset(token)


async def test_a_request_ends_with_its_call() -> None:
    call = _live("a")
    answering = asyncio.create_task(call.answer(asyncio.Event().wait(), "cancel"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.end()
    async with asyncio.timeout(limit(5)):
        assert await answering == "cancel"


async def test_a_server_that_asks_without_end_is_answered_and_fills_no_memory() -> None:
    form, inputs = (
        ElicitRequestFormParams(message="?", requested_schema={"type": "object", "properties": {}}),
        _inputs(9),
    )
    answers = [await inputs.elicit(form) for _ in range(20)]
    assert answers == [ElicitResult(action="cancel")] * 20
    assert len(inputs.notes) == 1, "the model reads the notes"
    call, never = _live("a"), asyncio.Event()
    open_ = [asyncio.create_task(call.answer(never.wait(), "cancel")) for _ in range(MOST_REQUESTS)]
    await asyncio.sleep(0)
    async with asyncio.timeout(limit(5)):
        assert await call.answer(never.wait(), "full") == "full"
        call.end()
        assert await asyncio.gather(*open_) == ["cancel"] * MOST_REQUESTS


async def test_a_server_that_may_not_ask_reaches_no_user() -> None:
    link = ElicitRequest(params=ElicitRequestURLParams(message="m", url="https://x.example/"))
    inputs = _inputs(0, replace(CONTEXT, can_ask=True))
    assert await inputs.ask_later(ServerRequests({"link": link})) is None
    assert await inputs.elicit(link.params) == ElicitResult(action="cancel")


async def test_a_question_may_outlive_the_clock_of_its_call() -> None:
    async with asyncio.timeout(limit(60)) as clock:
        waiting = replace(CONTEXT, clock=clock).untimed()
        waiting.__enter__()
    waiting.__exit__(None, None, None)
    assert not clock.expired()


async def test_several_requests_of_a_call_lend_one_slot() -> None:
    slots, asked = CallSlots(1), asyncio.Event()
    async with asyncio.timeout(limit(5)), slots.slot("a"):
        call = _live("a", partial(slots.lent, "a"))
        answering = [asyncio.create_task(call.answer(asked.wait(), "cancel")) for _ in range(3)]
        await asyncio.sleep(0)
        async with slots.slot("b"):
            waiting = asyncio.create_task(_take(slots, "c"))
            await asyncio.sleep(0)
            assert not waiting.done(), "there is one slot"
            asked.set()
            assert await asyncio.gather(*answering) == [True] * 3
            await asyncio.sleep(0)
            assert not waiting.done()
    await waiting


async def test_a_waiting_call_lends_its_slot() -> None:
    slots = CallSlots(5)
    async with asyncio.timeout(limit(5)), slots.slot("a"), slots.slot("a"), slots.slot("a"), slots.slot("a"):
        waiting = asyncio.create_task(_take(slots, "a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with slots.lent("a"):
            await waiting
    async with slots.slot("a"), slots.slot("a"), slots.slot("a"), slots.slot("a"), slots.slot("b"):
        pass


async def _take(slots: CallSlots, session: str) -> None:
    async with slots.slot(session):
        pass


def test_what_a_server_may_ask_for_is_in_its_entry() -> None:
    entry = {"name": "x", "command": "x"}
    assert StdioServer.model_validate(entry).sampling is None
    assert StdioServer.model_validate({**entry, "sampling": True}).sampling == Sampling()
    assert StdioServer.model_validate({**entry, "sampling": False}).sampling is None
    assert StdioServer.model_validate({**entry, "sampling": {"ask": False}}).sampling == Sampling(ask=False)
    for wrong in ({"sampling": {"calls": 0}}, {"sampling": "yes"}, {"elicitation_wait": -1}, {"roots": "x"}):
        with pytest.raises(ValueError, match="validation error"):
            StdioServer.model_validate({**entry, **wrong})
    with pytest.raises(ValueError, match="validation error"):
        HttpServer.model_validate({"name": "x", "url": "https://x.example", "roots": True})
