"""How long this door waits for its clients, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """`send_timeout`: who takes nothing for so long is dropped. `tick`: how often open streams are looked after."""

    heartbeat_every: float = 10.0
    send_timeout: float = 30.0
    tick: float = 1.0
    head_timeout: float = 10.0
    body_timeout: float = 30.0
