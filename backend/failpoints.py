"""Named places where a fault test makes a process die, freeze or fail. Off, one costs a look at an empty dict.

FAILPOINTS=after_claim=2:kill,mid_chunk=1:sleep:0.5 kills the process the second time it comes to `after_claim`, and
holds all of it up for half a second the first time it comes to `mid_chunk`. Each acts once in the life of a process.

    after_pg_commit_before_202   a message is accepted, its answer not begun
    after_publish_before_mark    a turn is on the queue, and not noted as published
    after_claim                  a task is claimed, its attempt has not begun
    after_attempt_marker         a stream was taken over, its marker is written, the dead attempt's tail still there
    mid_chunk                    chunks are on their way to Redis
    before_renew                 before a heartbeat
    after_tool_start             a call is committed and begun, its tool has done nothing yet
    after_tool_effect            a tool has done its work, its result is not committed
    before_final_commit          all of an answer is in its stream, its end not in Postgres
    after_final_commit           the end is in Postgres, the terminal chunks not in the stream
    after_completion_commit      an operation's outcome is committed, its sender not answered, its entry not acked
    after_terminal_before_ack    the terminal chunks are in the stream, the turn is not acked
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
    """A fault test asked for an error here."""


@dataclass(slots=True)
class Failpoint:
    """What happens at one place: `act` is called when `left` visits are used up."""

    name: str
    left: int
    act: Callable[[], None]

    @classmethod
    def parse_all(cls, plan: str) -> list[Failpoint]:
        """Raises ValueError for a plan that cannot be read."""
        return [cls._parse(told.strip()) for told in plan.split(",") if told.strip()]

    @classmethod
    def _parse(cls, told: str) -> Failpoint:
        match = _POINT.fullmatch(told)
        if match is None or match[1] not in NAMES:
            raise ValueError(f"{told!r} is no failpoint such as after_claim=2:kill")
        return cls(match[1], int(match[2]), _act(match[3]))


_armed: dict[str, Failpoint] = {}


def arm(plan: str) -> None:
    """Sets this process's failpoints; an empty plan has none. Raises ValueError for one that cannot be read."""
    _armed.clear()
    _armed.update({point.name: point for point in Failpoint.parse_all(plan)})
    if _armed:
        logger.warning("failpoints are armed", extra={"plan": plan})


def reach(name: str) -> None:
    """The process has come to this place."""
    if _armed and (point := _armed.get(name)) is not None:
        point.left -= 1
        if point.left == 0:
            logger.warning("failpoint", extra={"at": name})
            point.act()


def _act(told: str) -> Callable[[], None]:
    verb, _, seconds = told.partition(":")
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
