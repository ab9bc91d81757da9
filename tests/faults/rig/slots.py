"""ProcessSlot: keeps one API or executor running on one port, with its own fault proxy to each store."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Mapping, Sequence

import httpx

from tests.e2e.stack import PROGRAMS, Child, Stack
from tests.faults.rig.history import History
from tests.plain_http import http_client
from tests.servers.hosts import Host
from tests.servers.ports import free_port
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

SETTING_OF = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "rabbitmq": "RABBITMQ_URL"}
READY_WITHIN = limit(180)
_PAUSE_S = 0.3
"""Seconds between the end of a process and the start of the next."""
_PAUSE_AFTER_FAILED_START_S = 1.0
_FAILED_START_S = 3.0
"""A process that ends within so many seconds counts as one that cannot start."""
_EXECUTOR_ID = re.compile(r"executor (?:is ready|has started).* executor_id=(\S+)")


class ProcessSlot:
    """A place for one process, which is started again when it ends. `proxies` holds the fault proxies by store, `child`
    the newest process, and `starts` the number of processes so far. `host` is where they run, if not here."""

    def __init__(
        self,
        stack: Stack,
        kind: str,
        proxies: Mapping[str, FaultProxy],
        history: History,
        host: Host | None = None,
    ) -> None:
        self._stack = stack
        self._history = history
        self._program: Sequence[str] | None = None
        self._settings = {SETTING_OF[store]: proxy.dsn for store, proxy in proxies.items()}
        self._next_settings: dict[str, str] = {}
        self._supervising: asyncio.Task[None] | None = None
        self._restarts_disabled = False
        self._changed = asyncio.Condition()
        if host is not None:
            self._settings["HOST"] = host.address
        self.kind = kind
        self.host = host
        self.proxies = proxies
        self.port = free_port()
        self.child: Child | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        return f"http://{self.host.address if self.host else '127.0.0.1'}:{self.port}"

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    @property
    def executor_id(self) -> str | None:
        """The id under which the executor in this slot owns tasks, from its log. None before it is logged."""
        if self.child is None:
            return None
        found = _EXECUTOR_ID.findall(self.child.log.read_text(errors="replace"))
        return found[-1] if found else None

    def start(self, *, program: Sequence[str] | None = None, **settings: str) -> None:
        """Starts a process in this slot, and another one whenever it ends. `program` is the module that `python -m`
        runs instead, with its arguments. `settings`, such as FAILPOINTS, are for the first process only."""
        self._program = program
        self._next_settings = settings
        self._supervising = asyncio.create_task(self._supervise(), name=f"supervisor of an {self.kind}")

    def configure_next(self, **settings: str) -> None:
        """Sets settings, such as FAILPOINTS, for the next process in this slot only."""
        self._next_settings = settings

    async def started_again(self, starts: int) -> None:
        """Waits until more than `starts` processes have started in this slot."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.starts > starts)

    async def _supervise(self) -> None:
        while True:
            settings, self._next_settings = {**self._settings, **self._next_settings}, {}
            program = self._program
            if self.host is not None:
                program = self.host.program(*(program or PROGRAMS[self.kind]))
            self.child = await self._stack.spawn(self.kind, port=self.port, program=program, **settings)
            self.starts += 1
            self._history.note(self.child.name, "process", str(self.port), "invoke")
            began = time.monotonic()
            async with self._changed:
                self._changed.notify_all()
            code = await self.child.process.wait()
            self._history.note(self.child.name, "process", str(self.port), "ok", exit=code)
            await self._wait_for_restarts()
            failed = time.monotonic() - began < _FAILED_START_S
            await asyncio.sleep(_PAUSE_AFTER_FAILED_START_S if failed else _PAUSE_S)

    async def _wait_for_restarts(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._restarts_disabled)

    async def close(self) -> None:
        """Stops starting processes. A running one continues."""
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait({self._supervising})

    def disable_restarts(self) -> None:
        """Starts no other process when this one ends, until `enable_restarts` is called."""
        self._restarts_disabled = True

    async def kill(self) -> None:
        """Waits until a process runs in this slot and kills it with SIGKILL."""
        async with asyncio.timeout(READY_WITHIN), self._changed:
            await self._changed.wait_for(lambda: self.running)
        assert self.child is not None
        self.child.send(signal.SIGKILL)
        await self.child.ended()

    async def enable_restarts(self) -> None:
        async with self._changed:
            self._restarts_disabled = False
            self._changed.notify_all()

    def freeze(self) -> None:
        if self.child is not None:
            self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.child is not None:
            self.child.send(signal.SIGCONT)

    async def cut_off(self, store: str, mode: Mode) -> None:
        """Makes this process's connections to that store fail. Those of other processes stay as they are."""
        await self.proxies[store].switch(mode)

    async def heal(self) -> None:
        """Thaws the process, and lets its host and its proxies pass everything."""
        self.thaw()
        if self.host is not None:
            await self.host.heal()
        for proxy in self.proxies.values():
            await proxy.switch(Mode.PASS)

    async def ready(self, within: float = READY_WITHIN) -> None:
        """Waits until the process in this slot, or a later one, is ready. Raises RuntimeError with its log after
        `within` seconds."""
        deadline = time.monotonic() + within
        async with http_client(timeout=limit(20)) as client:
            while time.monotonic() < deadline:
                try:
                    if (await client.get(f"{self.url}/api/chat/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)  # between two checks of a bounded wait
        raise RuntimeError(f"no {self.kind} at {self.url}: {self.child.log_tail() if self.child else 'never started'}")
