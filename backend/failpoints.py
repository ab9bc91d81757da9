"""Named places where a fault test makes a process die, freeze or fail. If unused, one costs a lookup in an empty dict.

FAILPOINTS=after_claim=2:kill,mid_chunk=1:sleep:0.5 kills the process when it reaches `after_claim` for the second time,
and blocks it for half a second when it first reaches `mid_chunk`. Each failpoint acts once per process.

    after_pg_commit_before_202   a message is accepted, its response has not begun
    after_publish_before_mark    a turn is on the queue, but not recorded as published
    after_claim                  a task is claimed, its attempt has not begun
    after_attempt_marker         a stream was taken over, its marker is written, the dead attempt's tail remains
    mid_chunk                    chunks are on their way to Redis
    before_renew                 before a heartbeat
    after_tool_start             a call is committed and begun, its tool has done nothing yet
    after_tool_effect            a tool has done its work, its result is not committed
    before_steer_commit          a turn has taken in messages, and has not committed that
    after_steer_commit           a turn has committed messages that it has taken in, they are not in the stream
    before_final_commit          the whole answer is in its stream, its end is not in Postgres
    after_final_commit           the end is in Postgres, the terminal chunks are not in the stream
    after_completion_commit      an outcome is committed, its sender has no response, its entry is not acknowledged
    after_terminal_before_ack    the terminal chunks are in the stream, the turn is not acknowledged
    after_remote_task            a tool server has told the result of a task, the outcome is not committed
    after_webhook_attempt        an endpoint has answered, what it answered is not in Postgres
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

logger = logging.getLogger(__name__)
NAMES = frozenset(re.findall(r"^    (\w+)  ", __doc__ or "", re.MULTILINE))
_POINT = re.compile(r"(\w+)=(\d+):(kill|stop|raise|sleep:\d+(?:\.\d+)?)")


class FailpointReached(Exception):
    """The error that a failpoint with the action `raise` raises."""


@dataclass(slots=True)
class Failpoint:
    """An action at one place: `act` is called when the place is reached for the `left`-th time."""

    name: str
    left: int
    act: Callable[[], None]

    @classmethod
    def parse_all(cls, plan: str) -> list[Failpoint]:
        """Parses the value of FAILPOINTS. Raises ValueError if it cannot be read."""
        return [cls._parse(item.strip()) for item in plan.split(",") if item.strip()]

    @classmethod
    def _parse(cls, item: str) -> Failpoint:
        match = _POINT.fullmatch(item)
        if match is None or match[1] not in NAMES:
            raise ValueError(f"{item!r} is not a failpoint; an example is after_claim=2:kill")
        return cls(match[1], int(match[2]), _act(match[3]))


_armed: dict[str, Failpoint] = {}


def arm(plan: str) -> None:
    """Replaces this process's failpoints by those of `plan`. Raises ValueError if it cannot be read."""
    _armed.clear()
    _armed.update({point.name: point for point in Failpoint.parse_all(plan)})
    if _armed:
        logger.warning("failpoints are armed", extra={"plan": plan})


def reach(name: str) -> None:
    """Runs the action of the failpoint `name`, if one is set and due."""
    if _armed and (point := _armed.get(name)) is not None:
        point.left -= 1
        if point.left == 0:
            logger.warning("failpoint reached", extra={"at": name})
            point.act()


def _act(action: str) -> Callable[[], None]:
    verb, _, seconds = action.partition(":")
    match verb:
        case "kill":
            return partial(os.kill, os.getpid(), signal.SIGKILL)
        case "stop":
            return partial(os.kill, os.getpid(), signal.SIGSTOP)
        case "sleep":
            return partial(time.sleep, float(seconds))
    return _fail


def _fail() -> None:
    raise FailpointReached
