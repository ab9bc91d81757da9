"""Tests of the fault rig's checker: it finds nothing in a good run, and each kind of fault in a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.faults.rig.checker import RULES, check
from tests.faults.rig.history import Event
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.readings import Seen
from tests.faults.rig.snapshot import Row, Snapshot, TaskRow


@dataclass
class Run:
    """A run of one session with three messages, of which the third was cancelled in mid-answer. Tests spoil it."""

    events: list[Event] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    late: dict[str, Seen] = field(default_factory=dict)

    def note(self, op: str, id: str, outcome: Any, **about: Any) -> None:
        self.events.append(Event(float(len(self.events)), "ada", op, id, outcome, about))

    def turn(self, n: int, status: str, answer: str) -> None:
        text, id, task = question(f"q{n}", 3, 0), f"m{n}", f"t{n}"
        self.note("post", id, "invoke", session="s", text=text)
        self.note("post", id, "ok", session="s", task=task)
        self.tasks[task] = TaskRow(task, "s", id, status, started=10.0 * n, finished=10.0 * n + 5)
        self.rows.append(Row("s", len(self.rows) + 1, "user", task, text, id))
        self.rows.append(Row("s", len(self.rows) + 1, "assistant", task, answer))
        self.late[task] = Seen(task, answer, (status,))
        self.note("read", task, "ok", **self.late[task].as_json())

    def row(self, task: str, role: str) -> int:
        return next(n for n, row in enumerate(self.rows) if (row.task, row.role) == (task, role))

    def change_row(self, task: str, role: str, **change: Any) -> None:
        n = self.row(task, role)
        self.rows[n] = replace(self.rows[n], **change)

    def change_reading(self, task: str, /, **change: Any) -> None:
        """Changes what the live reader of that task saw."""
        n = next(n for n, event in enumerate(self.events) if (event.op, event.id) == ("read", task))
        self.events[n] = replace(self.events[n], about={**self.events[n].about, **change})

    def broken_rules(self) -> set[str]:
        return {
            fault.rule
            for fault in check(self.events, Snapshot(tuple(self.rows), tuple(self.tasks.values()), self.late))
        }


@pytest.fixture
def run() -> Run:
    run = Run()
    run.turn(1, "completed", "q1:0;q1:1;q1:2;")
    run.turn(2, "completed", "q2:0;q2:1;q2:2;")
    run.turn(3, "cancelled", "q3:0;")
    run.note("cancel", "t3", "ok", answer={"cancelled": True})
    return run


def test_a_good_run_has_no_fault(run: Run) -> None:
    assert run.broken_rules() == set()


def test_a_message_of_unknown_outcome_may_be_stored_or_not(run: Run) -> None:
    run.note("post", "m4", "invoke", session="s", text="/count q4 1 0")
    run.note("post", "m4", "unknown")
    assert run.broken_rules() == set()
    run.rows.append(Row("s", 7, "user", "t4", "/count q4 1 0", "m4"))
    run.rows.append(Row("s", 8, "assistant", "t4", "q4:0;"))
    run.tasks["t4"] = TaskRow("t4", "s", "m4", "completed", 90.0, 91.0)
    run.late["t4"] = Seen("t4", "q4:0;", ("completed",))
    assert run.broken_rules() == set()


def test_concurrent_messages_may_be_stored_in_either_order(run: Run) -> None:
    for n in (0, 1):
        run.events.insert(n, run.events.pop(3 * n))
    assert [event.id for event in run.events[:2]] == ["m1", "m2"]
    swapped = {1: 3, 2: 4, 3: 1, 4: 2}
    run.rows = [replace(row, sequence=swapped.get(row.sequence, row.sequence)) for row in run.rows]
    run.tasks["t1"], run.tasks["t2"] = replace(run.tasks["t1"], started=20.0), replace(run.tasks["t2"], started=10.0)
    run.tasks["t1"] = replace(run.tasks["t1"], finished=25.0)
    run.tasks["t2"] = replace(run.tasks["t2"], finished=15.0)
    assert run.broken_rules() == set()


def _swap_two_turns(run: Run) -> None:
    swapped = {1: 3, 2: 4, 3: 1, 4: 2}
    run.rows = [replace(row, sequence=swapped.get(row.sequence, row.sequence)) for row in run.rows]


def _lose_a_message(run: Run) -> None:
    run.rows = [replace(row, sequence=row.sequence - 2) for row in run.rows if row.task != "t1"]


def _ask_twice(run: Run) -> None:
    run.rows.append(Row("s", 7, "user", "t4", run.rows[0].text, "m1"))


def _invent_a_message(run: Run) -> None:
    run.rows.append(Row("s", 7, "user", "t4", "/count q4 1 0", "m4"))


def _keep_a_refused_message(run: Run) -> None:
    run.note("post", "m4", "invoke", session="s", text="/count q4 1 0")
    run.note("post", "m4", "fail", status=429)
    _invent_a_message(run)


def _give_a_message_two_tasks(run: Run) -> None:
    run.tasks["t4"] = replace(run.tasks["t1"], id="t4", started=90.0, finished=91.0)
    run.late["t4"] = Seen("t4", "", ("completed",))


def _answer_with_another_task(run: Run) -> None:
    run.note("post", "m1", "ok", session="s", task="t2")


def _leave_it_running(run: Run) -> None:
    run.tasks["t2"] = replace(run.tasks["t2"], status="running")


def _answer_twice(run: Run) -> None:
    run.rows.append(Row("s", 7, "assistant", "t3", "q3:0;"))


def _split_a_turn(run: Run) -> None:
    run.change_row("t1", "assistant", text="q1:0;q1:1;")
    run.rows.append(Row("s", 7, "assistant", "t1", "q1:2;"))


def _leave_a_gap(run: Run) -> None:
    run.rows = [replace(row, sequence=row.sequence + (row.sequence > 2)) for row in run.rows]


def _run_two_at_once(run: Run) -> None:
    run.tasks["t2"] = replace(run.tasks["t2"], started=12.0)


def _complete_what_was_cancelled(run: Run) -> None:
    run.tasks["t3"] = replace(run.tasks["t3"], status="completed")
    run.change_row("t3", "assistant", text="q3:0;q3:1;q3:2;")
    run.late["t3"] = Seen("t3", "q3:0;q3:1;q3:2;", ("completed",))
    run.change_reading("t3", **run.late["t3"].as_json())


def _answer_late(run: Run, **change: Any) -> None:
    run.late["t2"] = replace(run.late["t2"], **change)


BAD = {
    "a message is lost": (_lose_a_message, "accepted_messages_are_kept"),
    "a message has another text": (lambda run: run.change_row("t1", "user", text="?"), "accepted_messages_are_kept"),
    "a message is kept twice": (_ask_twice, "messages_are_kept_once"),
    "a message is invented": (_invent_a_message, "nothing_is_kept_that_was_not_sent"),
    "a refused message is kept": (_keep_a_refused_message, "nothing_is_kept_that_was_not_sent"),
    "a message has two tasks": (_give_a_message_two_tasks, "a_message_has_one_task"),
    "a repeated message has another task": (_answer_with_another_task, "a_message_has_one_task"),
    "a task never ends": (_leave_it_running, "every_task_ends"),
    "an answer has a gap": (lambda run: run.change_row("t1", "assistant", text="q1:0;q1:2;"), "answers_are_exact"),
    "an answer is there twice": (_answer_twice, "answers_are_exact"),
    "a live reader saw a repeat": (
        lambda run: run.change_reading("t1", text="q1:0;q1:0;q1:1;q1:2;"), "readers_see_the_answer",
    ),
    "a live reader saw a gap": (lambda run: run.change_reading("t1", text="q1:0;q1:2;"), "readers_see_the_answer"),
    "a live reader saw two starts": (lambda run: run.change_reading("t1", starts=2), "readers_see_the_answer"),
    "ids went back": (lambda run: run.change_reading("t1", ids_rise=False), "readers_see_the_answer"),
    "a late reader sees too little": (lambda run: _answer_late(run, text="q2:0;"), "readers_see_the_answer"),
    "a late reader sees nothing": (lambda run: run.late.pop("t2"), "readers_see_the_answer"),
    "a stream ends twice": (
        lambda run: _answer_late(run, ends=("completed", "completed")), "a_streams_end_is_true_unique_and_last",
    ),
    "a stream has no end": (lambda run: _answer_late(run, ends=()), "a_streams_end_is_true_unique_and_last"),
    "a stream continues after its end": (
        lambda run: _answer_late(run, last="text-delta"), "a_streams_end_is_true_unique_and_last",
    ),
    "a stream ends with another status": (
        lambda run: run.change_reading("t3", ends=("completed",)), "a_streams_end_is_true_unique_and_last",
    ),
    "a sequence is missing": (_leave_a_gap, "conversations_have_no_gaps"),
    "a turn is split": (_split_a_turn, "question_comes_before_answer_and_nothing_between"),
    "the order is another": (_swap_two_turns, "messages_are_stored_in_the_order_of_acceptance"),
    "two turns run at once": (_run_two_at_once, "a_session_runs_one_turn_at_a_time"),
    "a cancelled turn completes": (_complete_what_was_cancelled, "what_was_cancelled_never_completes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_found_by_its_rule(run: Run, fault: str) -> None:
    spoil, rule = BAD[fault]
    spoil(run)
    assert rule in run.broken_rules()


def test_each_rule_has_a_fault_that_it_must_find() -> None:
    assert {rule for _, rule in BAD.values()} == {rule.__name__ for rule in RULES}


def test_the_fake_models_answer_is_known_from_the_question() -> None:
    assert answer_to(f"{question('a', 2, 5)}\n/tool look {{}}\n/then\n/count b 1") == "a:0;a:1;b:0;"
