"""Indexes a history and a snapshot by what the guarantees are about: messages, tasks and sessions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.rig.history import Event
from tests.faults.rig.readings import Seen
from tests.faults.rig.snapshot import Row, Snapshot


@dataclass(slots=True)
class Post:
    """A message as its client knows it. `sent` and `accepted` are the positions in the history where that first
    happened, `tasks` the ids in its 2xx answers, and `open` the number of attempts that were not refused."""

    id: str
    session: str
    text: str
    sent: int
    accepted: int | None = None
    tasks: set[str] = field(default_factory=set)
    open: int = 0


class Story:
    """A history and a snapshot, indexed for the rules of the checker."""

    def __init__(self, events: Sequence[Event], snapshot: Snapshot) -> None:
        self.posts = _posts_of(events)
        self.tasks = {task.id: task for task in snapshot.tasks}
        self.late = snapshot.late
        self.live = [Seen.of(event.about) for event in events if event.op == "read" and event.outcome == "ok"]
        self.cancelled = [event.id for event in events if event.op == "cancel" and _was_granted(event)]
        self.sessions: dict[str, list[Row]] = defaultdict(list)
        self.questions: dict[str, str] = {}
        """The question of each task, from the conversation."""
        self.answers: dict[str, str] = defaultdict(str)
        """The answer of each task, from the conversation."""
        for row in sorted(snapshot.rows, key=lambda row: row.sequence):
            self.sessions[row.session].append(row)
            if row.role == "user":
                self.questions.setdefault(row.task, row.text)
            elif row.role == "assistant":
                self.answers[row.task] += row.text

    def status_of(self, task: str) -> str:
        return self.tasks[task].status if task in self.tasks else "not there"

    @property
    def user_rows(self) -> Iterator[Row]:
        for rows in self.sessions.values():
            yield from (row for row in rows if row.role == "user")


def _posts_of(events: Sequence[Event]) -> dict[str, Post]:
    posts: dict[str, Post] = {}
    for place, event in enumerate(events):
        if event.op != "post":
            continue
        if event.outcome == "invoke":
            post = posts.setdefault(event.id, Post(event.id, event.about["session"], event.about["text"], place))
            post.open += 1
        elif event.outcome == "fail":
            posts[event.id].open -= 1
        elif event.outcome == "ok":
            post = posts[event.id]
            post.tasks.add(event.about["task"])
            post.accepted = place if post.accepted is None else post.accepted
    return posts


def _was_granted(event: Event) -> bool:
    return bool(event.outcome == "ok" and event.about["answer"]["cancelled"])
