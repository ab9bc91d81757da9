"""Runs everything on one machine: the embedded servers, the migrations, the API and an executor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address

from backend.config import TOLD, Settings, chosen_settings
from backend.embedded import Child, EmbeddedServers, embedded_servers
from backend.embedded.generator import GENERATOR, own_generator
from backend.embedded.sandbox import own_sandbox
from backend.errors import ChildFailedError, ConfigError
from backend.listening import free_port
from backend.logs import configure_logs
from backend.migrating import migrate
from executor.llm.providers import check_models

READY_WITHIN = 60.0
STOP_MARGIN = 10.0
ANSWER_WITHIN = 5.0
"""Seconds that a process has to become ready, to exit after SHUTDOWN_GRACE, and to answer one readiness check."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a process that ended is restarted. The pause doubles each time."""
STEADY_AFTER = 60.0
"""Seconds that a process must run for the pauses to start again at FIRST_PAUSE."""

Say = Callable[[str], None]


async def up(settings: Settings, say: Say) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once. `say` prints a line for the user.

    Raises ConfigError or ChildFailedError if something does not start.
    """
    configure_logs(settings.log_level, _log_format(settings))
    check_models(settings)  # the executor would tell it only after the servers and the migrations
    stop_requested = asyncio.Event()

    def stop() -> None:
        stop_requested.set()
        say(
            f"Stopping. Running turns have up to {settings.shutdown_grace:g} s to finish. What is unfinished goes on"
            " after the next start, and pages show it. Press Ctrl-C again to stop at once."
        )
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stop)
    running = asyncio.create_task(_run(settings, say), name="run")
    stopping = asyncio.create_task(stop_requested.wait(), name="stop")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run(settings: Settings, say: Say) -> None:
    port, executor_port = free_port(settings.host, settings.port, "PORT"), settings.executor_port
    executor_port = free_port(settings.host, executor_port, "EXECUTOR_PORT")
    if port == executor_port:
        raise ConfigError(f"PORT and EXECUTOR_PORT are both {port}; each process needs its own")
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
        generator = own_generator(settings, environment["PLATFORM_BASE_URL"])
        if generator is not None:
            environment |= generator.environment
        sandbox = stack.enter_context(own_sandbox(settings))
        if sandbox is not None:
            environment["SANDBOX_SOCKET"] = str(sandbox.socket)
        await migrate(servers.postgres_dsn)
        processes = [
            _process("API", ("backend", "serve"), settings.host, port, environment),
            _process("executor", ("executor",), settings.host, executor_port, environment),
        ]
        if generator is not None:
            module = (GENERATOR, "--port", str(generator.port))
            own = {**os.environ, **generator.environment}
            processes.append(_process("agent generator", module, "127.0.0.1", generator.port, own, path="/health"))
        if sandbox is not None:
            processes.append(sandbox.child)
        stack.push_async_callback(_stop_all, processes, settings.shutdown_grace + STOP_MARGIN)
        await _start_all(processes)
        users = _users(settings, environment)
        about = f"{_model(settings)}; {users}; {_queue(settings)} queue; press Ctrl-C to stop"
        say(f"CoPilot is ready: {_url(settings.host, port)}  ({about})")
        async with asyncio.TaskGroup() as restarts:
            for child in (*servers.children, *processes):
                restarts.create_task(_keep_running(child, say), name=f"keep {child.name}")


@contextlib.asynccontextmanager
async def _servers(settings: Settings, say: Say) -> AsyncIterator[EmbeddedServers]:
    """Gives the servers that the settings name, and starts embedded ones for the others."""
    postgres = settings.database_url is None and settings.db_host is None
    redis = settings.redis_url is None and settings.redis_host is None
    if not (settings.data_dir / "postgres").exists() and postgres:
        say(f"First start: preparing a database in {settings.data_dir}")
    async with AsyncExitStack() as stack:
        embedded = EmbeddedServers("", "", ())
        if postgres or redis:
            embedded = await stack.enter_async_context(
                embedded_servers(settings.data_dir, postgres=postgres, redis=redis)
            )
        yield EmbeddedServers(
            embedded.postgres_dsn or settings.database_dsn,
            embedded.redis_dsn or settings.redis_dsn,
            embedded.children,
        )


def _queue(settings: Settings) -> str:
    named = settings.rabbitmq_url is not None or settings.rabbitmq_host is not None
    return settings.queue if named else "redis"


def _model(settings: Settings) -> str:
    """Returns the name of the model, as shown to the user."""
    if settings.models.listed:
        return f"{len(settings.models.shown)} models, {settings.models.default.shown} first"
    if settings.provider == "scripted":
        return (
            "scripted model: no API key and no CHAT_BASE_URL is set"
            if settings.chat_provider is None
            else "scripted model"
        )
    return f"model {settings.chat_model}" if settings.chat_model else f"the default model of {settings.provider}"


def _users(settings: Settings, environment: Mapping[str, str]) -> str:
    """Returns how users are known, as shown to the user."""
    mode = environment["AUTH_MODE"] if _local_user(settings) else settings.auth_mode
    if mode == "none":
        return "one user, without a login"
    without = "a token is needed" if mode == "required" else "whoever has no token is anonymous"
    return f"{without} (AUTH_MODE={mode})"


def _log_format(settings: Settings) -> str:
    """Returns `console` if the output is a terminal and LOG_FORMAT is not set."""
    chosen = "log_format" in chosen_settings()
    return settings.log_format if chosen or not sys.stderr.isatty() else "console"


def _local_user(settings: Settings) -> dict[str, str]:
    """Returns AUTH_MODE=none if only this machine can reach the API and authentication is not configured."""
    chosen = {"auth_mode", "jwt_verify_key", "jwt_jwks_url"} & chosen_settings()
    alone = _reachable(settings.host) == settings.host and _is_loopback(settings.host)
    return {"AUTH_MODE": "none"} if alone and not chosen else {}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _platform(settings: Settings, port: int) -> str:
    """Returns the address at which other services reach the API: the setting, or else the API's own port."""
    chosen = "platform_base_url" in chosen_settings()
    return settings.platform_base_url if chosen else _url(settings.host, port)


def _process(
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
    """Returns True if the process on that port reports that it is ready, with everything it needs."""
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
    """Stops API and executor, which are the first two, and then what running turns may still use."""
    for some in (children[:2], children[2:]):
        await asyncio.gather(*(child.stop(patience) for child in some))


async def _keep_running(child: Child, say: Say) -> None:
    """Restarts the child whenever it ends, after pauses that grow if it ends again soon."""
    pause = FIRST_PAUSE
    while True:
        started = asyncio.get_running_loop().time()
        code = await child.wait()
        lived = asyncio.get_running_loop().time() - started
        pause = FIRST_PAUSE if lived > STEADY_AFTER else min(pause * 2, LONGEST_PAUSE)
        say(f"{child.name} ended ({_cause(code)}); restarting it {_in(pause)}")
        await asyncio.sleep(pause)
        try:
            await child.start()
        except ChildFailedError as error:
            say(str(error))
        else:
            say(f"{child.name} is running again")


def _in(pause: float) -> str:
    return "at once" if pause <= 1 else f"in {pause:.0f} s"


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def _url(host: str, port: int) -> str:
    shown = _reachable(host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
