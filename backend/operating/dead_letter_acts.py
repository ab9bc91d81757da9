"""`python -m backend dead-letters`: looks at what was given up, sends it again, or drops it."""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat.models import Json
from backend.chat.queue.completions import Completion, EntryRefused, publish_completion
from backend.chat.queue.dead_letters import DeadLetter, DeadLetters, RedisDeadLetters
from backend.chat.queue.open import topology_of
from backend.chat.queue.turn_queue import UnreadableError, decode_turn, task_named_by
from backend.chat.resources import Resources
from backend.operating.task_acts import ActRefused, requeue


def dead_letters_of(resources: Resources) -> dict[str, DeadLetters]:
    """Returns the dead letters by kind: `turns` of the queue that the settings name, and `completions`."""
    settings = resources.settings
    turns: DeadLetters = RedisDeadLetters.of_turns(resources.redis)
    if settings.queue == "rabbitmq":
        from backend.chat.queue.rabbitmq_dead_letters import RabbitDeadLetters  # imported late: see `queue.open`

        turns = RabbitDeadLetters(settings.rabbitmq_dsn, topology_of(settings))
    return {"turns": turns, "completions": RedisDeadLetters.of_completions(resources.redis)}


async def all_letters(resources: Resources, limit: int) -> Sequence[DeadLetter]:
    return [letter for letters in dead_letters_of(resources).values() for letter in await letters.list(limit)]


def as_json(letter: DeadLetter) -> Json:
    """Returns a letter with the ids that its body names. Leaves out the body, which may have a user's data."""
    document = {"kind": letter.kind, "id": letter.id, "reason": letter.reason, "bytes": len(letter.body)}
    if letter.kind == "turns":
        return {**document, "task_id": task_named_by(letter.body)}
    try:
        return {**document, "operation_id": Completion.parse(letter.body).operation_id}
    except EntryRefused:
        return {**document, "operation_id": None}


async def find(resources: Resources, kind: str, id: str) -> DeadLetter:
    """Returns a letter. Raises ActRefused if there is none."""
    for letter in await dead_letters_of(resources)[kind].list(10_000):
        if letter.id == id:
            return letter
    raise _missing(kind, id)


async def send_again(resources: Resources, kind: str, id: str) -> str:
    """Sends the letter's content to its first destination again, then removes it.

    Raises ActRefused if it cannot be read, or if its task does not wait for an executor.
    """

    async def again(letter: DeadLetter) -> None:
        try:
            if letter.kind == "turns":
                await requeue(resources, decode_turn(letter.body).task_id)
            else:
                await publish_completion(resources.redis, Completion.parse(letter.body))
        except (UnreadableError, EntryRefused):
            raise ActRefused(f"the letter {id} cannot be read, so it cannot be sent again; drop it") from None

    if not await dead_letters_of(resources)[kind].settle(id, again):
        raise _missing(kind, id)
    return f"sent {kind} {id} again"


async def drop(resources: Resources, kind: str, id: str) -> str:
    """Removes a letter. Raises ActRefused if there is none."""

    async def nothing(letter: DeadLetter) -> None:
        pass

    if not await dead_letters_of(resources)[kind].settle(id, nothing):
        raise _missing(kind, id)
    return f"dropped {kind} {id}"


def _missing(kind: str, id: str) -> ActRefused:
    return ActRefused(f"there is no dead letter {id} of {kind}; executors take those of turns by themselves")
