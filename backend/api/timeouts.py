"""The timeouts of connections and requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts of connections and requests, all in seconds."""

    heartbeat_every: float = 10.0
    """The silence of a stream after which it sends a heartbeat."""
    send_timeout: float = 30.0
    """The time after which a client that reads nothing is dropped."""
    tick: float = 1.0
    """The time between two checks of all open streams."""
    head_timeout: float = 10.0
    """The time in which the head of a request must arrive."""
    body_timeout: float = 30.0
    """The time in which the body of a request must arrive."""
    answer_timeout: float = 7.0
    """The time after its body in which a request, or the first byte of a stream, is answered. Then it gets a 503."""
