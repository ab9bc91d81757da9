"""What decides and waits: conditions, delays, the time."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins

MAX_DELAY = 60.0


class ConditionPins(Pins):
    left: Any
    operator: Literal["==", "!=", "<", "<=", ">", ">=", "contains", "is empty"] = "=="
    right: Any = None
    yes: Any = Field(None, description="The value of the output “true”; without it, the value of left")
    no: Any = Field(None, description="The value of the output “false”; without it, the value of left")


async def _decide(pins: ConditionPins, _: Context) -> Outputs:
    holds = _holds(pins.left, pins.operator, pins.right)
    chosen = "yes" if holds else "no"
    value = getattr(pins, chosen) if chosen in pins.model_fields_set else pins.left
    return {"true" if holds else "false": value}


def _holds(left: Any, operator: str, right: Any) -> bool:
    match operator:
        case "==":
            return bool(_same(left, right))
        case "!=":
            return not _same(left, right)
        case "is empty":
            return left is None or left in ("", [], {})
        case "contains":
            if isinstance(left, str):
                return isinstance(right, str) and right in left
            return isinstance(left, list | dict) and any(_same(one, right) for one in left)
    if (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
        return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])
    raise BlockFailed(f"“{operator}” compares two numbers or two texts")


def _same(left: Any, right: Any) -> bool:
    return bool(isinstance(left, bool) == isinstance(right, bool) and left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class DelayPins(Pins):
    seconds: float = Field(ge=0, le=MAX_DELAY)
    value: Any = Field(None, description="It is passed on after the delay")


async def _wait(pins: DelayPins, _: Context) -> Outputs:
    await asyncio.sleep(pins.seconds)
    return {"value": pins.value}


class NowPins(Pins):
    timezone: str = Field("UTC", max_length=64, description="A name of the IANA time zone database")


async def _tell_time(pins: NowPins, context: Context) -> Outputs:
    try:
        now = context.services.now().astimezone(ZoneInfo(pins.timezone))
    except (KeyError, ValueError, OSError):
        raise BlockFailed(f"there is no time zone “{pins.timezone}”") from None
    return {
        "iso": now.isoformat(timespec="seconds"),
        "date": now.date().isoformat(),
        "time": now.strftime("%H:%M"),
        "weekday": now.isoweekday(),
        "timestamp": now.timestamp(),
    }


CONDITION = Block(
    "Condition",
    "Compares two values. Only the output that applies fires; the other one skips what hangs on it.",
    ("logic",),
    ConditionPins,
    {"true": {}, "false": {}},
    _decide,
)
DELAY = Block("Delay", f"Waits, at most {MAX_DELAY:.0f} seconds.", ("logic",), DelayPins, {"value": {}}, _wait)
NOW = Block(
    "Date and Time",
    "Gives the date and the time.",
    ("basic",),
    NowPins,
    {
        "iso": {"type": "string", "format": "date-time"},
        "date": {"type": "string", "format": "date"},
        "time": {"type": "string"},
        "weekday": {"type": "integer", "description": "1 is Monday, 7 is Sunday"},
        "timestamp": {"type": "number"},
    },
    _tell_time,
)
