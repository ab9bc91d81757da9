"""Arithmetic."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins

_LARGEST = 2**53
"""Integers beyond it are no longer exact in JavaScript and in JSON."""


class ArithmeticPins(Pins):
    operation: Literal["add", "subtract", "multiply", "divide"]
    a: int | float = Field(description="The first number")
    b: int | float = Field(description="The second number")


async def _calculate(pins: ArithmeticPins, _: Context) -> Outputs:
    a, b = pins.a, pins.b
    try:
        match pins.operation:
            case "add":
                result = a + b
            case "subtract":
                result = a - b
            case "multiply":
                result = a * b
            case "divide":
                result = a / b
    except ZeroDivisionError:
        raise BlockFailed("a number cannot be divided by 0") from None
    except OverflowError:
        raise BlockFailed("the result is too large") from None
    if isinstance(result, float) and result.is_integer() and abs(result) <= _LARGEST:
        result = int(result)
    if not isfinite(result) or (isinstance(result, int) and abs(result) > _LARGEST):
        raise BlockFailed("the result is too large")
    return {"result": result}


ARITHMETIC = Block(
    "Arithmetic",
    "Adds, subtracts, multiplies or divides two numbers.",
    ("math",),
    ArithmeticPins,
    {"result": {"type": "number"}},
    _calculate,
)
