"""A client of a Redis Cluster: redis-py's client of one server, once for each master, and the way to them.

redis-py's own cluster client is not used (docs/decisions/0023-redis-cluster.md says why). `beside`, `announcing`,
`shard_of`, `by_slot` and `info_of_servers` are all that the rest of the product knows of clusters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ConnectionError, MovedError, RedisError, TimeoutError, TryAgainError

from backend.errors import NoMaster
from backend.jitter import jitter
from backend.redis_address import Place, place_name
from backend.redis_moves import group_at
from backend.redis_slots import HIDDEN_HOSTS, SlotFinder

REDIRECTS = 8
"""Times that a command follows the nodes' words where to go."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds before a command is sent again, unless a node has just said where to."""
LEARN_GAP = 0.2
"""Seconds between two questions which master has which slots."""
SUSPICIOUS_AFTER = 1.0
"""Seconds without an answer after which the slots are asked for, because a replica may have replaced the master."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments and options of `Redis.execute_command`."""
_KEYLESS = frozenset({"PING", "INFO", "TIME", "PUBLISH", "SCRIPT LOAD", "CONFIG SET", "CONFIG GET"})
"""Commands that any node can answer. `PUBLISH` reaches the subscribers of all nodes."""
_KEY_AFTER = {"XREAD": "STREAMS", "XREADGROUP": "STREAMS"}
_AWAY = (ConnectionError, TimeoutError, OSError)
_NOT_HERE = (AskError, TryAgainError)
"""Another node has the key, or will have it (MovedError is an AskError)."""


class Unsettled(ConnectionError):
    """The nodes do not agree who has a slot, or its keys are on their way from one to another."""


class ClusterRedis(Redis):
    """A client of a cluster, for commands whose keys are in one slot. Raises what a client of one server raises.

    `anywhere` is a pool of connections to any master. `open_node` makes a client of one master, and `close_node` closes
    it. A command whose answer is lost is sent again up to `retries` times. A command that takes `patience` seconds
    makes the client look for a new master.
    """

    def __init__(
        self,
        finder: SlotFinder,
        anywhere: ConnectionPool,
        open_node: Callable[[Place], Redis],
        close_node: Callable[[Redis], Awaitable[None]],
        *,
        retries: int,
        patience: float,
    ) -> None:
        super().__init__(connection_pool=anywhere)
        self.auto_close_connection_pool = True
        self._finder = finder
        self._open_node = open_node
        self._close_node = close_node
        self._retries = retries
        self._patience = patience
        self._nodes: dict[Place, Redis] = {}
        self._owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._stale = True
        self._learned_at = float("-inf")
        self._learning: asyncio.Task[None] | None = None
        self._shut = False

    def owner_of(self, key: str) -> Place | None:
        """Returns the master that had a key's slot when that was last asked. None if it was not asked yet."""
        return self._owners[key_slot(key.encode())]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = _key_of(args)
        if key is None:
            anywhere: Any = super()
            return await anywhere.execute_command(*args, **options)
        failures = 0
        place = None if self._stale else self._owners[key_slot(key)]
        if place is not None and (node := self._nodes.get(place)) is not None:  # the usual case, without lists
            try:
                with self._watched():
                    return await cast("Any", node).execute_command(*args, **dict(options))
            except _NOT_HERE:
                pass  # the first redirection counts as one below
            except _AWAY:
                self._stale = True
                if not self._retries:
                    raise
                failures = 1
        (result,) = await self.run([(args, options)], failures)
        if isinstance(result, Exception):
            raise result
        return result

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Returns a pipeline that sends each master its commands in one round trip, to all masters at the same time.

        Raises ValueError for a transaction: scripts do what must be atomic.
        """
        if transaction:
            raise ValueError("a cluster has no transactions here")
        return _ClusterPipeline(self)

    async def run(self, calls: Sequence[Call], failures: int = 0) -> list[Any]:
        """Carries out the calls, which have got no answer `failures` times before. A result is the reply to its call,
        or the error. A call without a key goes where the call before it goes.
        """
        slots = _slots_of(calls)
        results: list[Any] = [None] * len(calls)
        left, redirects = list(range(len(calls))), 0
        while left:
            try:
                if self._stale:
                    await self._learn()
            except NoMaster as error:
                results = [error if i in set(left) else result for i, result in enumerate(results)]
            else:
                await self._send(left, slots, calls, results)
            moved = [i for i in left if isinstance(results[i], _NOT_HERE)]
            failed = [i for i in left if isinstance(results[i], _AWAY)]
            if failed:
                self._stale = True
                failures += 1
            if moved:
                redirects += 1
            left = [*(moved if redirects <= REDIRECTS else ()), *(failed if failures <= self._retries else ())]
            if left and (failed or redirects > 1):
                await asyncio.sleep(jitter(min(FIRST_PAUSE * 2 ** max(failures, redirects - 1), LONGEST_PAUSE)))
        for i, result in enumerate(results):
            if isinstance(result, _NOT_HERE):
                results[i] = Unsettled(f"CLUSTERDOWN the slot moves: {result}")
        return results

    async def info_of_masters(self, *sections: str) -> list[dict[str, Any]]:
        """Returns the reply of each master to INFO. Raises RedisError or OSError."""
        await self._learn()
        masters = {place for place in self._owners if place is not None}
        return await asyncio.gather(*(self._node(place).info(*sections) for place in masters))

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        self._shut = True
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        nodes, self._nodes = self._nodes, {}
        await asyncio.gather(*(self._close_node(node) for node in nodes.values()))
        await super().aclose(close_connection_pool)

    # --- one round ----------------------------------------------------------------------------------------------------

    async def _send(self, left: Sequence[int], slots: Sequence[int], calls: Sequence[Call], results: list[Any]) -> None:
        parts: dict[Place | None, list[int]] = {}
        for i in left:
            parts.setdefault(self._owners[slots[i]], []).append(i)
        jobs = [self._send_part(place, part, calls, results) for place, part in parts.items()]
        with self._watched():
            if len(jobs) == 1:  # it needs no task of its own
                await jobs[0]
            else:
                await asyncio.gather(*jobs)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Doubts the map if the body takes long, or is cancelled because its caller has lost patience."""
        watch = asyncio.get_running_loop().call_later(self._patience, self._suspect)
        try:
            yield
        except asyncio.CancelledError:
            self._stale = True
            raise
        finally:
            watch.cancel()

    async def _send_part(
        self, place: Place | None, part: Sequence[int], calls: Sequence[Call], results: list[Any]
    ) -> None:
        """Sends calls to one master in one round trip, and follows the redirections to nodes that import slots."""
        answers: list[Any]
        if place is None:
            answers = [Unsettled("CLUSTERDOWN no node has the slot")] * len(part)
        else:
            answers = await self._answers(place, [calls[i] for i in part])
        for i, answer in zip(part, answers, strict=True):
            results[i] = answer
            if isinstance(answer, MovedError):
                self._owners[answer.slot_id] = _target(answer, place)
            elif isinstance(answer, AskError):
                asking: list[Call] = [(("ASKING",), {}), calls[i]]
                results[i] = (await self._answers(_target(answer, place), asking))[-1]

    async def _answers(self, place: Place, calls: Sequence[Call]) -> list[Any]:
        """Returns the replies, or the errors, of calls that go to one server in one round trip."""
        if self._shut:
            return [ConnectionError("the client is closed")] * len(calls)
        node: Any = self._node(place)
        try:
            if len(calls) == 1:
                return [await node.execute_command(*calls[0][0], **calls[0][1])]
            pipeline = node.pipeline(transaction=False)
            for args, options in calls:
                pipeline.execute_command(*args, **options)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [error] * len(calls)
        return answers

    def _node(self, place: Place) -> Redis:
        if (node := self._nodes.get(place)) is None:
            node = self._nodes[place] = self._open_node(place)
        return node

    # --- who has which slots ------------------------------------------------------------------------------------------

    def _suspect(self) -> None:
        """Looks for a new master while a command waits. If there is one, the command fails and is sent to it."""
        self._stale = True
        self._start_learning()

    async def _learn(self) -> None:
        """Asks who has which slots, unless that was just asked. Raises NoMaster."""
        if asyncio.get_running_loop().time() - self._learned_at >= LEARN_GAP:
            await asyncio.shield(self._start_learning())

    def _start_learning(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn_once(), name="slots")
            self._learning.add_done_callback(_forget_failure)
        return self._learning

    async def _learn_once(self) -> None:
        layout = await self._finder.layout()
        owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, master in layout:
            owners[first : last + 1] = [master] * (last - first + 1)
        self._owners, self._stale = owners, False
        self._learned_at = asyncio.get_running_loop().time()
        for place in self._nodes.keys() - {master for *_, master in layout}:
            group_at(place_name(*place)).cut_all()  # a frozen or unreachable server would keep its clients waiting
            await self._close_node(self._nodes.pop(place))


class _ClusterPipeline(Pipeline):
    """Collects commands as redis-py's pipeline does, and sends them through a `ClusterRedis`."""

    def __init__(self, cluster: ClusterRedis) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction=False, shard_hint=None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        calls, self.command_stack = self.command_stack, []
        results = await self._cluster.run([(args, dict(options)) for args, options in calls])
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results


def beside(redis: Redis, key: str, anchor: str) -> str:
    """Returns the name of a key that is used together with the key `anchor`. In a cluster it is in the same slot."""
    return f"{key}:{{{anchor}}}" if isinstance(redis, ClusterRedis) else key


def announcing(redis: Redis) -> str:
    """Returns the command that publishes for the hubs. In a cluster, only the master of a channel's slot gets it."""
    return "SPUBLISH" if isinstance(redis, ClusterRedis) else "PUBLISH"


def shard_of(redis: Redis, key: str) -> Hashable:
    """Returns what two keys have in common if one server has both, as far as is known now: the slot, if no more is."""
    return (redis.owner_of(key) or key_slot(key.encode())) if isinstance(redis, ClusterRedis) else None


async def info_of_servers(redis: Redis, *sections: str) -> list[dict[str, Any]]:
    """Returns the reply of the server to INFO, or of each master of a cluster. Raises RedisError or OSError."""
    if isinstance(redis, ClusterRedis):
        return await redis.info_of_masters(*sections)
    return [await redis.info(*sections)]


def by_slot(redis: Redis, keys: Iterable[str]) -> list[list[str]]:
    """Returns the keys in groups, each of which one command may name."""
    if not isinstance(redis, ClusterRedis):
        return [list(keys)]
    groups: dict[int, list[str]] = {}
    for key in keys:
        groups.setdefault(key_slot(key.encode()), []).append(key)
    return list(groups.values())


def _slots_of(calls: Iterable[Call]) -> list[int]:
    slots, last = [], 0
    for args, _ in calls:
        key = _key_of(args)
        if key is not None:
            last = key_slot(key)
        slots.append(last)
    return slots


def _key_of(args: Sequence[Any]) -> bytes | None:
    """Returns the first key of a command. None if it has none."""
    command = _text(args[0]).upper()
    if command in _KEYLESS:
        return None
    at = 1
    if command in ("EVALSHA", "EVAL"):
        at = 3
    elif (word := _KEY_AFTER.get(command)) is not None:
        at = next(i for i, argument in enumerate(args) if isinstance(argument, bytes | str) and _text(argument) == word)
        at += 1
    key = args[at]
    return key if isinstance(key, bytes) else str(key).encode()


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("latin-1")


def _target(redirection: AskError, asked: Place | None) -> Place:
    """Returns the node that a redirection names. If the redirection hides the host, it is that of the asked node."""
    host = redirection.host if redirection.host not in HIDDEN_HOSTS or asked is None else asked[0]
    return host, redirection.port


def _forget_failure(job: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        job.exception()
