"""The facts that are remembered of a model server, and their lifetime."""

from __future__ import annotations

import pytest

from executor.llm.model import Prompt
from executor.llm.own_history import HistoryForm
from executor.llm.server_memory import FORGET_AFTER, MAX_CONVERSATIONS, Draft, ServerMemory


def test_a_refusal_is_forgotten_after_a_while_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    memory = ServerMemory("https://models.example m", clock=lambda: now)
    draft = Draft(Prompt("", ()), HistoryForm.OWN, 100)
    for _ in range(2):
        now += FORGET_AFTER + 1
        assert not memory.refuses("tools")
        assert memory.remember("tools", "it accepts no tools", draft)
        assert memory.refuses("tools")
    assert caplog.messages == ["model https://models.example m: it accepts no tools"]


def test_a_limit_is_forgotten_after_a_while() -> None:
    now = 0.0
    memory = ServerMemory("m", clock=lambda: now)
    memory.set_limit("context", 4_096, "its context has 4096 tokens")
    assert memory.limit("context") == 4_096
    now = FORGET_AFTER
    assert memory.limit("context") is None


def test_what_was_known_when_a_request_was_written_is_no_news() -> None:
    memory = ServerMemory("m")
    draft = Draft(Prompt("", ()), HistoryForm.OWN, 100)
    assert memory.remember("tools", "it accepts no tools", draft)
    assert memory.remember("tools", "it accepts no tools", draft), "another turn has learned it meanwhile"
    draft.known = memory.refused()
    assert not memory.remember("tools", "it accepts no tools", draft)


def test_the_forms_of_so_many_conversations_are_remembered() -> None:
    memory = ServerMemory("m")
    for number in range(MAX_CONVERSATIONS + 1):
        memory.set_form(f"call {number}", HistoryForm.TEXT)
    assert memory.form_of("call 0") is HistoryForm.OWN
    assert memory.form_of("call 1") is HistoryForm.TEXT
    assert memory.form_of(None) is HistoryForm.OWN
