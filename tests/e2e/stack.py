"""Starts API and executor processes over given servers, each with its own environment, as an operator does."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import jwt

from tests import ROOT
from tests.plain_http import http_client
from tests.servers.fork_server import Process, start
from tests.servers.ports import free_port
from tests.speed import limit

JWT_KEY = "the-key-of-the-end-to-end-tests-0123456789"
START_LIMIT = limit(60)
STOP_LIMIT = limit(45)
_LOG_TAIL = 8_000
PROGRAMS = {"api": ("backend", "serve"), "executor": ("executor",)}
_PORT_OF = {"api": "PORT", "executor": "EXECUTOR_PORT"}


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses of the stores. Without RabbitMQ, the queue is in Redis."""

    postgres: str
    redis: str
    rabbitmq: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        common = {"DATABASE_URL": self.postgres, "REDIS_URL": self.redis}
        if self.rabbitmq is None:
            return {**common, "QUEUE": "redis"}
        return {**common, "QUEUE": "rabbitmq", "RABBITMQ_URL": self.rabbitmq}


@dataclass(slots=True)
class Child:
    """An API or executor process and its log."""

    kind: str
    number: int
    port: int
    process: Process
    log: Path

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    async def ended(self, within: float = STOP_LIMIT) -> int:
        """Waits for the end and returns the exit code. Raises TimeoutError after `within` seconds."""
        return await asyncio.wait_for(self.process.wait(), within)

    def log_tail(self) -> str:
        text = self.log.read_text(errors="replace")[-_LOG_TAIL:]
        return f"--- {self.name}, {self.process.returncode=}, {self.log}:\n{text}"


@dataclass(slots=True)
class Stack:
    """API and executor processes. `base` is the first API's URL."""

    servers: Servers
    folder: Path
    settings: Mapping[str, str]
    children: list[Child] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def apis(self) -> list[Child]:
        """The running ones, in the order in which they were started."""
        return self._running("api")

    @property
    def base(self) -> str:
        return self.apis[0].url

    @property
    def executors(self) -> list[Child]:
        """The running ones, in the order in which they were started."""
        return self._running("executor")

    def _running(self, kind: str) -> list[Child]:
        return sorted(
            (child for child in self.children if child.kind == kind and child.running), key=lambda c: c.number
        )

    async def start_api(self, *, port: int | None = None, **settings: str) -> Child:
        return await self._start("api", port, settings)

    async def start_executor(self, **settings: str) -> Child:
        return await self._start("executor", None, settings)

    async def start_again(self, child: Child) -> Child:
        """Starts a process like one that has ended, on the same port."""
        return await self._start(child.kind, child.port, {})

    async def _start(self, kind: str, port: int | None, settings: Mapping[str, str]) -> Child:
        child = await self.spawn(kind, port=port, **settings)
        await ready(child)
        return child

    async def spawn(
        self, kind: str, *, port: int | None = None, program: Sequence[str] | None = None, **settings: str
    ) -> Child:
        """Starts an `api` or an `executor` and does not wait until it is ready. `program` is the module that `python
        -m` runs instead, with its arguments."""
        number, port = next(self._numbers), port or free_port()
        log = self.folder / f"{kind}-{number}.log"
        environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1", "CHAT_PROVIDER": "scripted", "JWT_VERIFY_KEY": JWT_KEY, "LOG_FORMAT": "console",
            "MAX_NEW_SESSIONS": "100000",
            "DATA_DIR": str(self.folder), **self.servers.environment, **self.settings, _PORT_OF[kind]: str(port),
            **settings,
        }  # fmt: skip
        process = await start(program or PROGRAMS[kind], cwd=self.folder, environment=environment, log=log)
        child = Child(kind, number, port, process, log)
        self.children.append(child)
        return child

    async def stop(self) -> None:
        """Sends SIGTERM to all processes, then SIGKILL to those that do not end."""
        for child in self.children:
            child.send(signal.SIGTERM)
        for child in self.children:
            try:
                await child.ended(limit(20))
            except TimeoutError:
                child.send(signal.SIGKILL)
                await child.ended()

    def logs(self) -> str:
        return "\n".join(child.log_tail() for child in self.children)

    @asynccontextmanager
    async def client(self, user: str | None = None, *, base: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """Opens an HTTP client of that user, or an anonymous one. Its read timeout is 30 s on the usual machine."""
        limits = httpx.Limits(max_connections=None)
        timeout = httpx.Timeout(limit(30), connect=limit(20))
        headers = bearer(user) if user is not None else {}
        async with http_client(base_url=base or self.base, headers=headers, timeout=timeout, limits=limits) as client:
            yield client


def bearer(user: str) -> dict[str, str]:
    token = jwt.encode({"sub": user, "exp": int(time.time()) + 3600}, JWT_KEY, algorithm="HS256")
    return {"authorization": f"Bearer {token}"}


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:12]}"


def new_session() -> str:
    return uuid.uuid4().hex


async def ready(child: Child, within: float = START_LIMIT) -> None:
    """Waits until the process is ready. Raises RuntimeError with its log if it ends or is late."""
    deadline = time.monotonic() + within
    answer = "nothing"
    async with http_client(timeout=limit(20)) as client:
        while time.monotonic() < deadline and child.running:
            try:
                response = await client.get(f"{child.url}/api/chat/health/ready")
            except httpx.TransportError as error:
                answer = repr(error)
            else:
                if response.status_code == 200:
                    return
                answer = response.text
            await asyncio.sleep(0.05)  # between two checks of a bounded wait
    raise RuntimeError(f"{child.name} is not ready ({answer})\n{child.log_tail()}")


@asynccontextmanager
async def open_stack(
    servers: Servers, folder: Path, *, executors: int = 1, apis: int = 1, **settings: str
) -> AsyncIterator[Stack]:
    """Starts the processes, with `settings` as environment variables. Stops them all when the block is left."""
    stack = Stack(servers, folder, settings)
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(stack.stop)
        async with asyncio.TaskGroup() as starting:
            for start in [stack.start_api] * apis + [stack.start_executor] * executors:
                starting.create_task(start())
        yield stack
