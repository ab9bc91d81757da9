"""The connections of a process to one address of Redis, so that all of them move when the address leads elsewhere.

After a failover, connections to the old server may stay open without end. A connection that writes hears READONLY; one
that only reads, or is subscribed, hears nothing and would show an old state. So the first one that hears it cuts all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol
from weakref import WeakSet

FIRST_GAP, LONGEST_GAP = 1.0, 30.0
"""Seconds between two cuts: the gap doubles while servers go on refusing, because there may be no other server."""


class Cuttable(Protocol):
    """A connection that can be cut."""

    def cut(self) -> None:
        """Closes the connection, as if the server had reset it. Does nothing to one that is closed."""


class ConnectionGroup:
    """The connections to one address."""

    def __init__(self) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        self._gap = FIRST_GAP
        self._next_at = 0.0

    def add(self, connection: Cuttable) -> None:
        """Adds a connection, for as long as somebody refers to it."""
        self._connections.add(connection)

    def note_refusal(self) -> None:
        """Notes a refusal of a kind that a replaced server gives. Cuts every connection, unless the last cut was too
        recent."""
        now = time.monotonic()
        if now < self._next_at:
            return
        calm = now - self._next_at > LONGEST_GAP
        self._gap = FIRST_GAP if calm else min(2 * self._gap, LONGEST_GAP)
        self._next_at = now + self._gap
        self.cut_all()

    def cut_all(self) -> None:
        """Cuts every connection. Their users open new ones."""
        for connection in list(self._connections):
            connection.cut()


@cache
def group_at(place: str) -> ConnectionGroup:
    """Returns the one `ConnectionGroup` of this process for a server, by its host and port, or its socket's path."""
    return ConnectionGroup()


REPLICA = "READONLY the server is a replica"
CLUSTER = "CLUSTER the server is a node of a Redis Cluster; write redis+cluster:// or rediss+cluster://"


def refusal_of(greeting: object, *, in_cluster: bool = False) -> str | None:
    """Returns why a server cannot be used, by its reply to HELLO as a dict or as a flat list. None if it can be."""
    if isinstance(greeting, list) and len(greeting) % 2 == 0 and all(isinstance(name, bytes) for name in greeting[::2]):
        greeting = dict(zip(greeting[::2], greeting[1::2], strict=True))
    if not isinstance(greeting, Mapping):
        return None
    if greeting.get(b"mode") == b"cluster" and not in_cluster:
        return CLUSTER
    return REPLICA if greeting.get(b"role") in (b"replica", b"slave") else None
