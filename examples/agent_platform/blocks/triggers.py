"""The triggers: what starts a run."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from examples.agent_platform.blocks.block import Block, Context, Outputs, Pins, as_text


class TriggerPins(Pins):
    instruction: str = Field("", max_length=20_000, description="When the agent runs, in words")


class SchedulePins(TriggerPins):
    cron: str = Field("0 8 * * *", max_length=200, description="Minute, hour, day of month, month, day of week")
    timezone: str = Field("UTC", max_length=64, description="A name of the IANA time zone database")


async def _start(pins: TriggerPins, context: Context) -> Outputs:
    now = context.services.now().isoformat()
    payload: Any = context.payload if context.payload is not None else {}
    return {"result": as_text(payload) if payload else pins.instruction, "payload": payload, "started_at": now}


_OUTPUTS = {
    "result": {"type": "string", "description": "The payload as text, or else the instruction"},
    "payload": {"description": "What the trigger brought; an empty object if nothing"},
    "started_at": {"type": "string", "format": "date-time"},
}


def _trigger(name: str, description: str, pins: type[TriggerPins]) -> Block:
    return Block(name, description, ("trigger",), pins, _OUTPUTS, _start, kind="trigger")


MANUAL_TRIGGER = _trigger("Manual Trigger", "A person starts the agent.", TriggerPins)
SCHEDULE_TRIGGER = _trigger(
    "Schedule Trigger", "Proposes the times at which the agent runs; a schedule of the graph starts it.", SchedulePins
)
WEBHOOK_TRIGGER = _trigger(
    "Webhook Trigger", "A POST to the webhook of the graph starts the agent; its body is the payload.", TriggerPins
)
EVENT_TRIGGER = _trigger(
    "Event Trigger",
    "Another service reports an event to the webhook of the graph, which starts the agent.",
    TriggerPins,
)
