"""Simulated blocks: they stand for services that this platform does not have, and say so."""

from __future__ import annotations

from pydantic import Field

from examples.agent_platform.blocks.block import Block, Context, Outputs, Pins
from examples.agent_platform.blocks.texts import MAX_TEXT

_SHOWN = 2_000


class SimulatedPins(Pins):
    instruction: str = Field("", max_length=20_000, description="What the block does, in words")
    input: str = Field("", max_length=4 * MAX_TEXT, description="The text that it does it with")


def _simulated(name: str, act: str, *, idempotent: bool) -> Block:
    async def run(pins: SimulatedPins, _: Context) -> Outputs:
        about = f": {pins.instruction}" if pins.instruction else ""
        text = f"\n{pins.input[:_SHOWN]}" if pins.input else ""
        return {"result": f"Simulated {name}{about}. Nothing was done.{text}"}

    description = f"Simulated: {act}. It does nothing and says what it would do."
    outputs = {"result": {"type": "string"}}
    return Block(name, description, ("simulated",), SimulatedPins, outputs, run, idempotent=idempotent)


SEND_EMAIL = _simulated("Send Email", "sends a mail", idempotent=False)
SEND_MESSAGE = _simulated("Send Message", "sends a message in a chat", idempotent=False)
WEB_SEARCH = _simulated("Web Search", "searches the web", idempotent=True)
READ_WEB_PAGE = _simulated("Read Web Page", "reads a page that is found by its description", idempotent=True)
WRITE_ROW = _simulated("Write Row", "writes a row into a table", idempotent=False)
RUN_AGENT = _simulated("Run Agent", "runs another agent of the user", idempotent=False)
