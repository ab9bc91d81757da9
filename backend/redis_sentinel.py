"""Redis Sentinel: asks which server is the master now. The address of the Sentinels is read in `redis_address`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from backend.logs import why_away
from backend.redis_address import Sentinels, place_name, place_of_redis, sentinels_of
from backend.redis_majority import ANSWER_LIMIT, majority
from backend.redis_moves import ConnectionGroup, group_at


class MasterFinder:
    """Finds the master of one name. Every new connection of the process to this address asks it again."""

    def __init__(self, sentinels: Sentinels, group: ConnectionGroup) -> None:
        self._options = dict(sentinels.options)
        self._service = sentinels.service
        self._places = sentinels.places
        self._group = group
        self._last: tuple[str, int] | None = None

    async def find(self) -> tuple[str, int]:
        """Returns host and port of the master that most Sentinels name, since an isolated one may name an old master.

        If the master has changed, cuts all connections of the group: a frozen or unreachable server would keep them
        open. Raises NoMaster.
        """
        answers = (self._answer_of(place) for place in self._places)
        master = await majority(answers, "no Sentinel names a master")
        if self._last not in (None, master):
            self._group.cut_all()
        self._last = master
        return master

    async def _answer_of(self, place: tuple[str, int]) -> tuple[str, int] | str:
        """Returns the master that a Sentinel names, or why it names none."""
        try:
            master = await self._ask(place)
        except (RedisError, OSError) as error:
            return f"{place_name(*place)}: {_reason(error)}"
        return master or f"{place_name(*place)}: it knows no master named {self._service}"

    async def _ask(self, place: tuple[str, int]) -> tuple[str, int] | None:
        async with Redis(
            host=place[0],
            port=place[1],
            socket_timeout=ANSWER_LIMIT,
            socket_connect_timeout=ANSWER_LIMIT,
            retry=Retry(NoBackoff(), 0),
            max_connections=1,
            **self._options,
        ) as sentinel:
            found: Any = await sentinel.sentinel_get_master_addr_by_name(self._service)
        if found is None:
            return None
        host, port = found
        return host.decode() if isinstance(host, bytes) else str(host), int(port)


def _reason(error: Exception) -> str:
    if isinstance(error, ResponseError) and "unknown command" in str(error):
        return "it is no Sentinel"
    return why_away(error)


@lru_cache(maxsize=16)
def master_finder(dsn: str) -> MasterFinder | None:
    """Returns the one `MasterFinder` of this process for a URL. None if the URL names a server. Raises ConfigError."""
    sentinels = sentinels_of(dsn)
    return MasterFinder(sentinels, group_at(place_of_redis(dsn))) if sentinels is not None else None
