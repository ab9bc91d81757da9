"""The pub/sub connections of a hub: one to the server, or one to each master of a cluster.

In a cluster, a message reaches the node that has the slot of its channel, and no other (sharded pub/sub).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from backend.chat.streams.pubsub import PubSubConnection
from backend.errors import NoMaster
from backend.jitter import jitter
from backend.logs import why_away
from backend.redis_address import Place, place_name, place_of_redis
from backend.redis_slots import Layout, SlotFinder, slot_finder
from backend.supervised import start_supervised

SILENCE_LIMIT = 5.0
"""Seconds without any data after which a connection counts as lost."""
PING_AFTER = 2.0
"""Seconds without any data after which each check sends a PING."""
FIRST_PAUSE = 0.05
"""Seconds before the second try to connect."""
LONGEST_PAUSE = 2.0
LEARN_GAP = 0.2
"""Seconds between two questions which master has which slots."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """The functions that a hub gives to its links.

    on_message gets channel and payload, on_confirmed a channel whose messages arrive from now on, on_lost the channels
    whose messages do not arrive any more, complain what failed (None: all is well again), why, and the seconds until
    the next try.
    """

    on_message: Callable[[bytes, bytes], None]
    on_confirmed: Callable[[bytes], None]
    on_lost: Callable[[Iterable[bytes]], None]
    complain: Callable[[str | None, str, float], None]


class Links(Protocol):
    """Connections that keep themselves connected while `run` runs, and the channels to which they are subscribed."""

    connected: asyncio.Event
    """Set when all connections were there for the first time."""

    @property
    def receives(self) -> bool:
        """Returns True if messages arrive, from every server."""
        ...

    async def run(self) -> None: ...

    def add(self, channels: Iterable[bytes]) -> None:
        """Subscribes to channels, and has them confirmed. A channel may be added again."""

    def drop(self, channel: bytes) -> None: ...

    def check(self) -> None:
        """Notices silent connections. To be called every second or so."""


class Link:
    """One connection, to where the URL leads or to one node of a cluster."""

    def __init__(
        self,
        dsn: str,
        receiver: Receiver,
        place: Place | None = None,
        on_moved: Callable[[int], None] | None = None,
        on_change: Callable[[bool], None] = lambda up: None,
    ) -> None:
        self.channels: set[bytes] = set()
        self.connected = asyncio.Event()
        self._dsn = dsn
        self._place = place
        self._name = place_of_redis(dsn) if place is None else place_name(*place)
        self._receiver = receiver
        self._on_moved = on_moved
        self._on_change = on_change
        self._connection: PubSubConnection | None = None

    @property
    def receives(self) -> bool:
        link = self._connection
        return link is not None and asyncio.get_running_loop().time() - link.received_at < SILENCE_LIMIT

    def add(self, channels: Iterable[bytes]) -> None:
        channels = list(channels)
        self.channels.update(channels)
        if self._connection is not None:
            self._connection.subscribe(channels)

    def drop(self, channel: bytes) -> None:
        self.channels.discard(channel)
        if self._connection is not None:
            self._connection.unsubscribe(channel)

    def check(self) -> None:
        link = self._connection
        if link is not None:
            silent_for = asyncio.get_running_loop().time() - link.received_at
            if silent_for >= SILENCE_LIMIT:
                link.close()
            elif silent_for >= PING_AFTER:
                link.ping()

    async def run(self) -> None:
        pause, receiver = FIRST_PAUSE, self._receiver
        while True:
            try:
                link = await PubSubConnection.connect(
                    self._dsn, receiver.on_message, receiver.on_confirmed, self._on_moved, self._place
                )
            except OSError as error:
                wait = jitter(pause, 0.5, 1.5)
                receiver.complain(f"pub/sub connection to {self._name} failed", why_away(error), wait)
                self._on_change(False)
                await asyncio.sleep(wait)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            try:
                self._connection = link
                receiver.complain(None, "", 0)
                link.subscribe(self.channels)
                self.connected.set()
                self._on_change(True)
                said = await link.closed
            finally:
                self._connection = None
                link.close()
                receiver.on_lost(self.channels)
            wait = jitter(pause, 0.0)
            receiver.complain("pub/sub connection was lost", said or "the connection was lost", wait)
            self._on_change(False)
            await asyncio.sleep(wait)
            pause = FIRST_PAUSE if said is None else min(pause * 2, LONGEST_PAUSE)


class ClusterLinks:
    """A connection to each master of a cluster. Each channel is subscribed at the master that has its slot."""

    def __init__(self, dsn: str, finder: SlotFinder, receiver: Receiver) -> None:
        self.connected = asyncio.Event()
        self._dsn = dsn
        self._finder = finder
        self._receiver = receiver
        self._owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._links: dict[Place, Link] = {}
        self._jobs: dict[Place, asyncio.Task[None]] = {}
        self._homeless: set[bytes] = set()
        self._learn = asyncio.Event()

    @property
    def receives(self) -> bool:
        return bool(self._links) and not self._homeless and all(link.receives for link in self._links.values())

    def add(self, channels: Iterable[bytes]) -> None:
        parts: dict[Link, list[bytes]] = {}
        for channel in channels:
            link = self._link_of(channel)
            if link is not None:
                parts.setdefault(link, []).append(channel)
            else:
                self._homeless.add(channel)
                self._learn.set()
        for link, part in parts.items():
            link.add(part)

    def drop(self, channel: bytes) -> None:
        self._homeless.discard(channel)
        link = self._link_of(channel)
        if link is not None:
            link.drop(channel)

    def check(self) -> None:
        if self._homeless:
            self._learn.set()
        for link in self._links.values():
            link.check()

    async def run(self) -> None:
        try:
            while True:
                self._learn.clear()
                try:
                    self._take(await self._finder.layout())
                except NoMaster as error:
                    self._receiver.complain("the masters of the cluster are not known", why_away(error), LEARN_GAP)
                    self._learn.set()
                await asyncio.sleep(jitter(LEARN_GAP))
                await self._learn.wait()
        finally:
            for place in list(self._links):
                self._end(place)

    def _take(self, layout: Layout) -> None:
        """Takes the masters and their slots: starts and ends links, and moves channels whose master has changed."""
        owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, master in layout:
            owners[first : last + 1] = [master] * (last - first + 1)
        moved = set(self._homeless)
        for place, link in self._links.items():
            here = {channel for channel in link.channels if owners[key_slot(channel)] != place}
            for channel in here:
                link.drop(channel)
            self._receiver.on_lost(here)
            moved |= here
        masters = {master for *_, master in layout}
        for place in self._links.keys() - masters:
            self._end(place)
        for place in masters - self._links.keys():
            link = Link(self._dsn, self._receiver, place, partial(self._on_moved, place), self._on_change)
            self._links[place] = link
            self._jobs[place] = start_supervised(link.run, f"hub-{place_name(*place)}")
        self._owners = owners
        self._homeless.clear()
        self.add(moved)

    def _end(self, place: Place) -> None:
        del self._links[place]
        self._jobs.pop(place).cancel()

    def _link_of(self, channel: bytes) -> Link | None:
        place = self._owners[key_slot(channel)]
        return self._links.get(place) if place is not None else None

    def _on_moved(self, place: Place, slot: int) -> None:
        """Takes the word of a node that it has a slot no longer."""
        link = self._links.get(place)
        if link is None or self._owners[slot] != place:
            return
        here = {channel for channel in link.channels if key_slot(channel) == slot}
        link.channels -= here
        self._receiver.on_lost(here)
        self._homeless |= here
        self._owners[slot] = None
        self._learn.set()

    def _on_change(self, up: bool) -> None:
        if not up:
            self._learn.set()  # another node may be the master now
        elif self.receives:
            self.connected.set()


def links_to(dsn: str, receiver: Receiver) -> Links:
    """Returns the links to the servers of a URL. Raises ConfigError."""
    finder = slot_finder(dsn)
    return Link(dsn, receiver) if finder is None else ClusterLinks(dsn, finder, receiver)
