"""Everything on one machine: the embedded servers, the migrations, the API and an executor, until we are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from errno import EADDRINUSE
from ipaddress import ip_address
from pathlib import Path
from secrets import token_urlsafe

from backend.config import TOLD, Settings, chosen_settings
from backend.embedded import Child, EmbeddedServers, embedded_servers
from backend.errors import ChildFailedError, ConfigError
from backend.logs import configure_logs
from backend.migrating import migrate

READY_WITHIN = 60.0
STOP_MARGIN = 10.0
ANSWER_WITHIN = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_AFTER = 60.0
GENERATOR = "examples.agent_generator"

Say = Callable[[str], None]


async def up(settings: Settings, say: Say) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP; a second one stops at once. `say` gets lines for people.

    Raises ConfigError or ChildFailedError when something does not start.
    """
    configure_logs(settings.log_level, _log_format(settings))
    told_to_stop = asyncio.Event()

    def stop() -> None:
        told_to_stop.set()
        say(
            f"Stopping; what is being answered may take up to {settings.shutdown_grace:g} s to end."
            " Ctrl-C once more stops at once."
        )
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stop)
    house = asyncio.create_task(_run(settings, say), name="house")
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    await asyncio.wait({house, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    house.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await house


async def _run(settings: Settings, say: Say) -> None:
    port, executor_port = _free_port(settings.host, settings.port, "PORT"), settings.executor_port
    executor_port = _free_port(settings.host, executor_port, "EXECUTOR_PORT")
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(_servers(settings, say))
        environment = {
            **os.environ,
            "DATABASE_URL": servers.postgres_dsn,
            "REDIS_URL": servers.redis_dsn,
            "QUEUE": _queue(settings),
            "PORT": str(port),
            "EXECUTOR_PORT": str(executor_port),
            "LOG_FORMAT": _log_format(settings),
            "PLATFORM_BASE_URL": _platform(settings, port),
            TOLD: "1",
        }
        environment |= _local_user(settings)
        generator = _generator(settings, port)
        if generator is not None:
            environment |= generator.environment
        await migrate(servers.postgres_dsn)
        doors = [
            _door("API", ("backend", "serve"), settings.host, port, environment),
            _door("executor", ("executor",), settings.host, executor_port, environment),
        ]
        if generator is not None:
            doors.append(generator.door({**os.environ, **generator.environment}))
        stack.push_async_callback(_stop_all, doors, settings.shutdown_grace + STOP_MARGIN)
        await _start_all(doors)
        about = f"{_model(settings)}; {_queue(settings)} queue; Ctrl-C stops it"
        say(f"CoPilot is ready: {_url(settings.host, port)}  ({about})")
        async with asyncio.TaskGroup() as keepers:
            for child in (*servers.children, *doors):
                keepers.create_task(_keep(child, say), name=f"keep {child.name}")


@contextlib.asynccontextmanager
async def _servers(settings: Settings, say: Say) -> AsyncIterator[EmbeddedServers]:
    """What the settings name, and the embedded ones for the rest."""
    postgres = settings.database_url is None and settings.db_host is None
    redis = settings.redis_url is None and settings.redis_host is None
    if not (settings.data_dir / "postgres").exists() and postgres:
        say(f"First start: preparing a database in {settings.data_dir}")
    async with AsyncExitStack() as stack:
        ours = EmbeddedServers("", "", ())
        if postgres or redis:
            ours = await stack.enter_async_context(embedded_servers(settings.data_dir, postgres=postgres, redis=redis))
        yield EmbeddedServers(
            ours.postgres_dsn or settings.database_dsn, ours.redis_dsn or settings.redis_dsn, ours.children
        )


def _queue(settings: Settings) -> str:
    named = settings.rabbitmq_url is not None or settings.rabbitmq_host is not None
    return settings.queue if named else "redis"


def _model(settings: Settings) -> str:
    """Which model answers, for people."""
    if settings.provider == "scripted":
        return "scripted model: no API key is set" if settings.chat_provider is None else "scripted model"
    return f"model {settings.chat_model}" if settings.chat_model else f"the usual model of {settings.provider}"


def _log_format(settings: Settings) -> str:
    """For people on a terminal, unless somebody chose."""
    chosen = "log_format" in chosen_settings()
    return settings.log_format if chosen or not sys.stderr.isatty() else "console"


def _local_user(settings: Settings) -> dict[str, str]:
    """Whoever sits at this machine is the one user, unless somebody chose how users are known."""
    chosen = {"auth_mode", "jwt_verify_key", "jwt_jwks_url"} & chosen_settings()
    alone = _reachable(settings.host) == settings.host and _is_loopback(settings.host)
    return {"AUTH_MODE": "none"} if alone and not chosen else {}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class _Generator:
    """The small agent generator of a checkout's examples/, for whoever has no other."""

    port: int
    environment: Mapping[str, str]

    def door(self, environment: Mapping[str, str]) -> Child:
        module = (GENERATOR, "--port", str(self.port))
        return _door("agent generator", module, "127.0.0.1", self.port, environment, path="/health")


def _generator(settings: Settings, platform_port: int) -> _Generator | None:
    """None where another one is set, or there are no examples."""
    if settings.agentgenerator_host is not None or not Path(*GENERATOR.split(".")).is_dir():
        return None
    port = _free_port("127.0.0.1", 0, "AGENTGENERATOR_PORT")
    keys = settings.chat_internal_api_key
    key = keys.get_secret_value().partition(",")[0].strip() if keys is not None else token_urlsafe(32)
    ours = {} if keys is not None else {"CHAT_INTERNAL_API_KEY": key}
    platform = _platform(settings, platform_port)
    return _Generator(
        port,
        {
            **ours,
            "AGENTGENERATOR_HOST": "127.0.0.1",
            "AGENTGENERATOR_PORT": str(port),
            "AGENT_TEMPLATES_DIR": str(settings.agent_templates_dir or Path("examples", "agent_templates").resolve()),
            "GENERATOR_API_KEY": key,
            "GENERATOR_CALLBACK_BASE": platform,
            "GENERATOR_DELAY": "8",
            "GENERATOR_PROGRESS": "6",
        },
    )


def _platform(settings: Settings, port: int) -> str:
    """Where other services reach the API: as it was set, else on the port that it has."""
    chosen = "platform_base_url" in chosen_settings()
    return settings.platform_base_url if chosen else f"http://{_reachable(settings.host)}:{port}"


def _door(
    name: str,
    module: Sequence[str],
    host: str,
    port: int,
    environment: Mapping[str, str],
    path: str = "/api/chat/health/ready",
) -> Child:
    async def ready() -> bool:
        return await _is_ready(_reachable(host), port, path)

    return Child(
        name,
        [sys.executable, "-m", *module],
        ready=ready,
        ready_within=READY_WITHIN,
        environment=environment,
    )


async def _is_ready(host: str, port: int, path: str) -> bool:
    """Whether the process on that port says that it and all it needs are ready."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _start_all(children: Sequence[Child]) -> None:
    try:
        async with asyncio.TaskGroup() as starts:
            for child in children:
                starts.create_task(child.start(), name=f"start {child.name}")
    except* ChildFailedError as failed:
        raise failed.exceptions[0] from None


async def _stop_all(children: Sequence[Child], patience: float) -> None:
    await asyncio.gather(*(child.stop(patience) for child in children))


async def _keep(child: Child, say: Say) -> None:
    """Starts it again whenever it ends, with longer pauses while it does not stay."""
    pause = FIRST_PAUSE
    while True:
        started = asyncio.get_running_loop().time()
        code = await child.wait()
        lived = asyncio.get_running_loop().time() - started
        pause = FIRST_PAUSE if lived > STEADY_AFTER else min(pause * 2, LONGEST_PAUSE)
        say(f"{child.name} ended ({_cause(code)}); starting it again {_in(pause)}")
        await asyncio.sleep(pause)
        try:
            await child.start()
        except ChildFailedError as error:
            say(str(error))
        else:
            say(f"{child.name} runs again")


def _in(pause: float) -> str:
    return "at once" if pause <= 1 else f"in {pause:.0f} s"


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _free_port(host: str, port: int, setting: str) -> int:
    """The port, or a free one for 0. Raises ConfigError when somebody listens there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ConfigError(f"HOST: {host} is not an address of this machine") from None
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            hint = "; is another one running? Else set PORT and EXECUTOR_PORT" if error.errno == EADDRINUSE else ""
            raise ConfigError(f"{setting}: cannot listen on {host}:{port}: {error.strerror}{hint}") from None
        chosen: int = trial.getsockname()[1]
        return chosen


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def _url(host: str, port: int) -> str:
    shown = _reachable(host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
