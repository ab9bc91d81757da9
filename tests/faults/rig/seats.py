"""A seat: the place of one process of ours, with a way of its own to each store. What ends there is started again."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Mapping, Sequence

import httpx

from tests.e2e.stack import Child, Stack
from tests.faults.rig.history import History
from tests.servers.ports import free_port
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

SETTING_OF = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "rabbitmq": "RABBITMQ_URL"}
READY_WITHIN = limit(180)
_PAUSE = 0.3
_PAUSE_OF_ONE_THAT_CANNOT_START = 1.0
_SHORT_LIFE = 3.0
_EXECUTOR_ID = re.compile(r"executor (?:is ready|has started).* executor_id=(\S+)")


class Seat:
    """`ways` are its proxies, by store. `child` is the process that has the seat now, dead or alive."""

    def __init__(self, stack: Stack, kind: str, ways: Mapping[str, FaultProxy], history: History) -> None:
        self._stack = stack
        self._history = history
        self._program: Sequence[str] | None = None
        self._settings = {SETTING_OF[store]: way.dsn for store, way in ways.items()}
        self._next_life: dict[str, str] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._vacant = False
        self._changed = asyncio.Condition()
        self.kind = kind
        self.ways = ways
        self.port = free_port()
        self.child: Child | None = None
        self.lives = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    @property
    def executor_id(self) -> str | None:
        """Who the process of this seat is among the owners of tasks, from its log; None before it says so."""
        if self.child is None:
            return None
        said = _EXECUTOR_ID.findall(self.child.log.read_text(errors="replace"))
        return said[-1] if said else None

    def occupy(self, *, program: Sequence[str] | None = None, **first_life: str) -> None:
        """Starts a process here and starts it again whenever it ends. `program`: what `python -m` runs instead;
        `first_life`: settings of the first process alone, such as FAILPOINTS."""
        self._program = program
        self._next_life = first_life
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of an {self.kind}")

    def doom(self, **settings: str) -> None:
        """Settings of the next process here alone, such as FAILPOINTS."""
        self._next_life = settings

    async def lives_on(self, lives: int) -> None:
        """Waits until more processes than so many have begun here."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.lives > lives)

    async def _keep(self) -> None:
        while True:
            settings, self._next_life = {**self._settings, **self._next_life}, {}
            self.child = await self._stack.spawn(self.kind, port=self.port, program=self._program, **settings)
            self.lives += 1
            self._history.note(self.child.name, "life", str(self.port), "invoke")
            began = time.monotonic()
            async with self._changed:
                self._changed.notify_all()
            code = await self.child.process.wait()
            self._history.note(self.child.name, "life", str(self.port), "ok", exit=code)
            await self._stay_vacant()
            short = time.monotonic() - began < _SHORT_LIFE
            await asyncio.sleep(_PAUSE_OF_ONE_THAT_CANNOT_START if short else _PAUSE)

    async def _stay_vacant(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._vacant)

    async def close(self) -> None:
        """No process is started here any more; one that runs goes on."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def hold(self) -> None:
        """When the process here ends, no other follows before `revive`."""
        self._vacant = True

    async def kill(self) -> None:
        """`kill -9`, also of a process that has just begun."""
        async with asyncio.timeout(READY_WITHIN), self._changed:
            await self._changed.wait_for(lambda: self.running)
        assert self.child is not None
        self.child.send(signal.SIGKILL)
        await self.child.ended()

    async def revive(self) -> None:
        async with self._changed:
            self._vacant = False
            self._changed.notify_all()

    def freeze(self) -> None:
        if self.child is not None:
            self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.child is not None:
            self.child.send(signal.SIGCONT)

    async def cut_off(self, store: str, mode: Mode) -> None:
        """Makes this process's way to that store fail; everybody else's stays as it is."""
        await self.ways[store].switch(mode)

    async def heal(self) -> None:
        """Thaws it, and makes its ways whole."""
        self.thaw()
        for way in self.ways.values():
            await way.switch(Mode.PASS)

    async def ready(self, within: float = READY_WITHIN) -> None:
        """Waits until the process here, or one that follows it, says that it is ready; RuntimeError with its log."""
        deadline = time.monotonic() + within
        async with httpx.AsyncClient(trust_env=False, timeout=limit(20)) as client:
            while time.monotonic() < deadline:
                try:
                    if (await client.get(f"{self.url}/api/chat/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)  # between two questions of a bounded wait
        raise RuntimeError(f"no {self.kind} at {self.url}: {self.child.log_tail() if self.child else 'never started'}")
