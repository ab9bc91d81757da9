"""Finds violations of the guarantees in a run, with pure functions over a history and a final snapshot.

A rule is a generator that yields its violations, and its name says what must hold. The rules know the guarantees only,
not how the system works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

from tests.faults.rig.history import Event
from tests.faults.rig.model import answer_to
from tests.faults.rig.snapshot import Snapshot
from tests.faults.rig.story import Story

ENDED = frozenset({"completed", "failed", "cancelled"})
_SHOWN = 20
Faults = Iterator[tuple[str, str]]
"""Pairs of the id of a message, task or session, and what is wrong about it."""


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    id: str
    why: str


def check(events: Sequence[Event], snapshot: Snapshot) -> list[Violation]:
    """Returns all violations of the guarantees."""
    story = Story(events, snapshot)
    return [Violation(rule.__name__, id, why) for rule in RULES for id, why in rule(story)]


def summary(found: Sequence[Violation]) -> str:
    """Returns a text with the number of violations of each rule and the first 20 of them."""
    lines = [f"{times} x {rule}" for rule, times in Counter(fault.rule for fault in found).items()]
    return "\n".join([*lines, *(f"{fault.rule}: {fault.id} {fault.why}" for fault in found[:_SHOWN])])


def accepted_messages_are_kept(story: Story) -> Faults:
    kept = {(row.session, row.message_id): row.text for row in story.user_rows}
    for post in story.posts.values():
        if post.accepted is not None and kept.get((post.session, post.id)) != post.text:
            yield post.id, f"was accepted, and the conversation has {kept.get((post.session, post.id))!r}"


def messages_are_kept_once(story: Story) -> Faults:
    for id, times in Counter(row.message_id for row in story.user_rows).items():
        if times > 1:
            yield str(id), f"is in conversations {times} times"


def nothing_is_kept_that_was_not_sent(story: Story) -> Faults:
    for row in story.user_rows:
        post = story.posts.get(str(row.message_id))
        if post is None or post.session != row.session or post.text != row.text:
            yield str(row.message_id), f"is in {row.session} as {row.text!r}, which nobody sent"
        elif not post.open:
            yield post.id, "was refused each time, and is in the conversation"


def a_message_has_one_task(story: Story) -> Faults:
    for (session, id), times in Counter((task.session, task.message_id) for task in story.tasks.values()).items():
        if times > 1:
            yield str(id), f"has {times} tasks in {session}"
    for post in story.posts.values():
        if len(post.tasks) > 1:
            yield post.id, f"was answered with several tasks: {sorted(post.tasks)}"
        if unknown := post.tasks - story.tasks.keys():
            yield post.id, f"was answered with tasks that are not there: {sorted(unknown)}"


def every_task_ends(story: Story) -> Faults:
    for task in story.tasks.values():
        if task.status not in ENDED:
            yield task.id, f"is {task.status}"


def answers_are_exact(story: Story) -> Faults:
    """The answer of a completed task is exactly the one it was asked for. That of another task is a beginning of it."""
    for task in story.tasks.values():
        wanted, answer = answer_to(story.questions.get(task.id, "")), story.answers.get(task.id, "")
        if (answer != wanted) if task.status == "completed" else not wanted.startswith(answer):
            yield task.id, f"is {task.status}; {_difference(wanted, answer)}"


def readers_see_the_answer(story: Story) -> Faults:
    """Live and late readers get the same text that the conversation holds."""
    for seen in chain(story.live, story.late.values()):
        wanted = answer_to(story.questions.get(seen.task, ""))
        completed = story.status_of(seen.task) == "completed"
        if (seen.text != wanted) if completed else not wanted.startswith(seen.text):
            yield seen.task, f"was read wrong; {_difference(wanted, seen.text)}"
        if seen.starts != 1 or not seen.ids_rise:
            yield seen.task, f"was read with {seen.starts} starts, {seen.ids_rise=}"
    for id in story.tasks.keys() - story.late.keys():
        yield id, "could not be read afterwards"


def a_streams_end_is_true_unique_and_last(story: Story) -> Faults:
    for seen in chain(story.live, story.late.values()):
        status = story.status_of(seen.task)
        if seen.ends != (status,) or seen.last != "finish":
            yield seen.task, f"is {status}; its stream ends with {seen.ends}, and its last chunk is {seen.last}"


def conversations_have_no_gaps(story: Story) -> Faults:
    for session, rows in story.sessions.items():
        if (sequences := [row.sequence for row in rows]) != list(range(1, len(rows) + 1)):
            yield session, f"has the sequences {sequences}"


def question_comes_before_answer_and_nothing_between(story: Story) -> Faults:
    for session, rows in story.sessions.items():
        turns = [(task, [row.role for row in of_task]) for task, of_task in groupby(rows, key=lambda row: row.task)]
        if len(turns) != len({task for task, _ in turns}):
            yield session, "has the rows of a turn apart from each other"
        for task, roles in turns:
            if roles[0] != "user" or "user" in roles[1:]:
                yield task, f"has the rows {roles}"
            elif len(roles) == 1 and story.status_of(task) == "completed":
                yield task, "is completed without an answer"


def messages_are_stored_in_the_order_of_acceptance(story: Story) -> Faults:
    """A message that was accepted before another one was first sent comes before it."""
    for session, rows in story.sessions.items():
        posts = [story.posts[row.message_id] for row in rows if row.message_id in story.posts]
        accepted_later = float("inf")
        for post in reversed(posts):
            if post.sent > accepted_later:
                yield post.id, f"comes in {session} before a message that was accepted before it was sent"
            if post.accepted is not None:
                accepted_later = min(accepted_later, post.accepted)


def a_session_runs_one_turn_at_a_time(story: Story) -> Faults:
    """Checks the turns that are in the conversation, because a turn that was cancelled while it waited never ran."""
    ran = sorted(
        (task.session, task.started, task.finished or float("inf"), task.id)
        for task in story.tasks.values()
        if task.started is not None and task.id in story.questions
    )
    for (session, _, finished, one), (other_session, started, _, other) in pairwise(ran):
        if session == other_session and started < finished:
            yield other, f"began at {started}, while {one} ran until {finished}"


def what_was_cancelled_never_completes(story: Story) -> Faults:
    for id in story.cancelled:
        if story.status_of(id) != "cancelled":
            yield id, f"was cancelled, and is {story.status_of(id)}"


RULES: tuple[Callable[[Story], Faults], ...] = (
    accepted_messages_are_kept,
    messages_are_kept_once,
    nothing_is_kept_that_was_not_sent,
    a_message_has_one_task,
    every_task_ends,
    answers_are_exact,
    readers_see_the_answer,
    a_streams_end_is_true_unique_and_last,
    conversations_have_no_gaps,
    question_comes_before_answer_and_nothing_between,
    messages_are_stored_in_the_order_of_acceptance,
    a_session_runs_one_turn_at_a_time,
    what_was_cancelled_never_completes,
)


def _difference(wanted: str, found: str) -> str:
    """Describes where two texts begin to differ."""
    differing = (n for n, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b)
    place = next(differing, min(len(wanted), len(found)))
    return f"at {place} of {len(wanted)} should be {wanted[place : place + 20]!r}, is {found[place : place + 20]!r}"
