"""The ends of a graph: its inputs and its outputs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins

InputType = Literal["string", "number", "boolean", "object", "array"]


class AgentInputPins(Pins):
    name: str = Field(min_length=1, max_length=200, description="The name of the input")
    title: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=2_000)
    type: InputType = "string"
    default: Any = Field(None, description="The value if a run gives none. Without it, the input is required")


class AgentOutputPins(Pins):
    name: str = Field(min_length=1, max_length=200, description="The name of the output")
    title: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=2_000)
    value: Any = Field(description="The value that the agent gives")


async def _give_input(pins: AgentInputPins, context: Context) -> Outputs:
    if pins.name in context.node_input:
        return {"result": context.node_input[pins.name]}
    if "default" not in pins.model_fields_set:
        raise BlockFailed(f"the input “{pins.name}” has no value")
    return {"result": pins.default}


async def _take_output(pins: AgentOutputPins, _: Context) -> Outputs:
    return {"output": pins.value}


AGENT_INPUT = Block(
    "Agent Input",
    "A value that each run of the agent gets from its user.",
    ("basic",),
    AgentInputPins,
    {"result": {"description": "The value"}},
    _give_input,
    kind="input",
)
AGENT_OUTPUT = Block(
    "Agent Output",
    "A result of the agent.",
    ("basic",),
    AgentOutputPins,
    {"output": {"description": "The value"}},
    _take_output,
    kind="output",
)
