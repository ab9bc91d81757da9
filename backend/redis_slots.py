"""Asks the nodes of a Redis Cluster which master has which slots. Their addresses are read in `redis_address`."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from backend.logs import why_away
from backend.redis_address import Place, parse_redis_url, place_name, seeds_of
from backend.redis_majority import ANSWER_LIMIT, majority

ASKED_SEEDS, ASKED_OTHERS = 3, 5
"""Nodes of the URL, and other ones, that are asked at the same time."""
NO_CLUSTER = "it is no node of a cluster"
HIDDEN_HOSTS = ("", "?")
"""What a node says instead of an address that it does not know, or does not tell."""


class SlotRange(NamedTuple):
    """The slots from `first` to `last`, both included, and the master that has them."""

    first: int
    last: int
    master: Place


Layout = tuple[SlotRange, ...]


class SlotFinder:
    """Finds the masters of one cluster. It remembers the nodes, so that those of the URL may be replaced."""

    def __init__(self, seeds: Iterable[Place], address: dict[str, Any]) -> None:
        self._seeds = tuple(seeds)
        self._known: tuple[Place, ...] = ()
        self._address = dict(address)
        self._made: Any = self._address.pop("connection_class", Connection)

    async def layout(self) -> Layout:
        """Returns the slots as most of the asked nodes tell them, since an isolated one may tell an old state.

        Raises NoMaster.
        """
        known, seeds = list(self._known), list(self._seeds)
        places = {*random.sample(known, min(ASKED_OTHERS, len(known)))}
        places |= {*random.sample(seeds, min(ASKED_SEEDS, len(seeds)))}
        answers = (self._answer_of(place) for place in places)
        layout, nodes = await majority(answers, "no node of the cluster tells its slots")
        self._known = nodes
        return layout

    async def find(self) -> Place:
        """Returns any master, for what every node can answer. Raises NoMaster."""
        [found] = random.sample(await self.layout(), 1)
        return found.master

    async def _answer_of(self, place: Place) -> tuple[Layout, tuple[Place, ...]] | str:
        """Returns the slots that a node tells, and all nodes that have some, or why it tells none."""
        try:
            rows = await self._ask(place)
        except (RedisError, OSError) as error:
            return f"{place_name(*place)}: {_reason(error)}"
        layout = tuple(sorted(SlotRange(first, last, _place(nodes[0], place)) for first, last, *nodes in rows if nodes))
        nodes = tuple(sorted({_place(node, place) for _, _, *nodes in rows for node in nodes}))
        return (layout, nodes) if layout else f"{place_name(*place)}: no node has slots"

    async def _ask(self, place: Place) -> Any:
        connection: Any = self._made(
            host=place[0],
            port=place[1],
            socket_timeout=ANSWER_LIMIT,
            socket_connect_timeout=ANSWER_LIMIT,
            retry=Retry(NoBackoff(), 0),
            **self._address,
        )
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


def _place(node: Any, asked: Place) -> Place:
    """Reads `[address, port, id, ...]`. A node without an address has that of the node which was asked."""
    host = (node[0] or b"").decode()
    return host if host not in HIDDEN_HOSTS else asked[0], int(node[1])


def _reason(error: Exception) -> str:
    if isinstance(error, ResponseError) and "cluster support disabled" in str(error):
        return NO_CLUSTER
    return why_away(error)


@lru_cache(maxsize=16)
def slot_finder(dsn: str) -> SlotFinder | None:
    """Returns the one `SlotFinder` of this process for a URL. None if the URL names no cluster. Raises ConfigError."""
    seeds = seeds_of(dsn)
    return SlotFinder(seeds.places, parse_redis_url(dsn)) if seeds is not None else None
