"""Tests of the parts of the agent platform of examples/ in this process: schedules by a clock, limits, services."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.outside_addresses import OutsideAddresses
from examples.agent_generator.deliveries import may_call_back
from examples.agent_platform import runner, schedules
from examples.agent_platform.blocks.block import BlockFailed
from examples.agent_platform.database import Connection, FolderInUse, open_database
from examples.agent_platform.execution import Outcome
from examples.agent_platform.model import ScriptedModel, open_model
from examples.agent_platform.options import InvalidOption, Limits, PlatformOptions, read_platform_options
from examples.agent_platform.parts import Platform, open_platform
from examples.agent_platform.problems import Problem
from examples.agent_platform.runs import NewRun, RunStatus
from examples.agent_platform.schedules import NewSchedule, next_after
from examples.agent_platform.web import MAX_BYTES, WebClient, open_web, readable_encoding
from tests.platform_graphs import adder, graph, node
from tests.servers.receiver import receiver
from tests.speed import limit

BEGIN = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def opened(clock: Clock, limits: Limits = Limits(), folder: Path | None = None) -> AsyncIterator[Platform]:
    async with open_platform(PlatformOptions(data=folder, limits=limits), now=clock) as platform:
        await platform.graphs.put("u", "g", 1, adder())
        await platform.graphs.put("u", "slow", 1, graph([node("wait", "Delay", seconds=60)]))
        yield platform


async def payloads(platform: Platform) -> list[Any]:
    runs = [await platform.runs.get("u", "g", run.id) for run in await platform.runs.newest("u", "g", 20)]
    return [run.payload["scheduled_for"] for run in reversed(runs)]


def schedule(**changes: Any) -> NewSchedule:
    values: dict[str, Any] = {"cron": "0 8 * * *", "timezone": "Europe/Berlin", "node_input": {"a": 1}} | changes
    return NewSchedule("u", "g", 1, values.pop("name", "n"), **values)


# --- schedules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "expected"),
    [
        ("0 8 * * *", "UTC", "2026-03-28T08:00:00", "2026-03-29T08:00:00"),
        ("0 8 * * *", "Europe/Berlin", "2026-03-28T06:00:00", "2026-03-28T07:00:00"),
        ("0 8 * * *", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-29T06:00:00"),  # summer time begins
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-29T01:00:00"),  # 2:30 is left out
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00", "2026-10-25T00:30:00"),  # 2:30 comes twice, runs once
        ("0 9 * * 1-5", "UTC", "2026-03-27T10:00:00", "2026-03-30T09:00:00"),
        ("0 9 * * 0", "UTC", "2026-03-28T10:00:00", "2026-03-29T09:00:00"),  # Sunday
        ("0 9 * * 7", "UTC", "2026-03-28T10:00:00", "2026-03-29T09:00:00"),
        ("*/20 * * * *", "Asia/Kolkata", "2026-03-28T10:00:00", "2026-03-28T10:10:00"),
    ],
)
def test_cron_follows_the_clocks_of_its_time_zone(cron: str, timezone: str, after: str, expected: str) -> None:
    found = next_after(cron, timezone, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


async def test_a_schedule_runs_at_its_times() -> None:
    clock = Clock()
    async with opened(clock) as platform:
        made = await platform.schedules.create(schedule(), clock())
        assert made.next_run_at == datetime(2026, 3, 29, 6, 0, tzinfo=UTC)
        assert await platform.scheduler.look() == 60
        assert await payloads(platform) == []
        clock.now = made.next_run_at - timedelta(seconds=5)
        assert await platform.scheduler.look() == 5
        clock.now = made.next_run_at
        await platform.scheduler.look()
        await platform.scheduler.look()
        clock.now += timedelta(days=1)
        await platform.scheduler.look()
        assert await payloads(platform) == ["2026-03-29T06:00:00+00:00", "2026-03-30T06:00:00+00:00"]


async def test_missed_times_become_one_run() -> None:
    clock = Clock()
    async with opened(clock) as platform:
        await platform.schedules.create(schedule(), clock())
        clock.now += timedelta(days=10)
        await platform.scheduler.look()
        await platform.scheduler.look()
        assert await payloads(platform) == ["2026-03-29T06:00:00+00:00"]
        (left,) = await platform.schedules.of_user("u", None)
        assert left.next_run_at == datetime(2026, 4, 8, 6, 0, tzinfo=UTC)


async def test_a_paused_schedule_does_not_catch_up() -> None:
    clock = Clock()
    async with opened(clock) as platform:
        made = await platform.schedules.create(schedule(), clock())
        await platform.schedules.pause("u", made.id, True, clock())
        clock.now += timedelta(days=10)
        await platform.scheduler.look()
        again = await platform.schedules.pause("u", made.id, False, clock())
        await platform.scheduler.look()
        assert await payloads(platform) == []
        assert again.next_run_at > clock.now


async def test_a_schedule_without_room_runs_later() -> None:
    clock = Clock()
    async with opened(clock, Limits(runs_of_user=1)) as platform:
        made = await platform.schedules.create(schedule(), clock())
        slow = await platform.runner.start(NewRun("u", "slow", 1, {}))
        clock.now = made.next_run_at
        assert await platform.scheduler.look() == 5
        assert await payloads(platform) == []
        await platform.runner.cancel(slow)
        await platform.scheduler.look()
        assert len(await payloads(platform)) == 1


async def test_one_users_schedules_without_room_do_not_keep_others_waiting() -> None:
    clock = Clock()
    async with opened(clock, Limits(runs_of_user=1, schedules_of_user=200)) as platform:
        for number in range(101):
            made = await platform.schedules.create(schedule(name=str(number)), clock())
        await platform.graphs.put("v", "g", 1, adder())
        await platform.schedules.create(replace(schedule(), user_id="v", cron="1 8 * * *"), clock())
        slow = await platform.runner.start(NewRun("u", "slow", 1, {}))
        clock.now = made.next_run_at + timedelta(minutes=1)
        assert await platform.scheduler.look() == 5
        assert len(await platform.runs.newest("v", "g", 20)) == 1
        await platform.runner.cancel(slow)


async def test_a_schedule_that_cannot_go_on_is_paused_and_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with opened(clock) as platform:
        lost = await platform.schedules.create(schedule(timezone="Europe/Kyiv"), clock())
        made = await platform.schedules.create(schedule(), clock())
        clock.now = max(lost.next_run_at, made.next_run_at)
        zones = schedules.ZoneInfo

        def without_kyiv(name: str) -> Any:
            if name == "Europe/Kyiv":
                raise KeyError(name)  # as after an update of the time zone database
            return zones(name)

        monkeypatch.setattr(schedules, "ZoneInfo", without_kyiv)
        await platform.scheduler.look()
        found = {one.timezone: one.paused for one in await platform.schedules.of_user("u", "g")}
        assert found == {"Europe/Kyiv": True, "Europe/Berlin": False}


async def test_a_time_runs_once_even_if_the_platform_dies_before_it_is_noted(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(clock, folder=tmp_path) as platform:
        made = await platform.schedules.create(schedule(), clock())
        key = f"schedule {made.id} {made.next_run_at.isoformat()}"
        payload = {"schedule_id": made.id, "scheduled_for": made.next_run_at.isoformat()}
        await platform.runner.start(NewRun("u", "g", 1, {"a": 1}, payload, key))
    clock.now = made.next_run_at
    async with opened(clock, folder=tmp_path) as platform:
        await platform.scheduler.look()
        assert len(await payloads(platform)) == 1


# --- limits -------------------------------------------------------------------------------------------------------


async def test_runs_of_a_user_are_limited() -> None:
    async with opened(Clock(), Limits(runs_of_user=2)) as platform:
        started = [await platform.runner.start(NewRun("u", "slow", 1, {})) for _ in range(2)]
        with pytest.raises(Problem) as caught:
            await platform.runner.start(NewRun("u", "slow", 1, {}))
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "too_many", 5)
        await platform.runner.cancel(started[0])
        await platform.runner.start(NewRun("u", "slow", 1, {}))


async def test_runs_of_one_user_do_not_keep_others_waiting() -> None:
    async with opened(Clock(), Limits(runs_at_once_of_user=1)) as platform:
        await platform.graphs.put("v", "g", 1, adder())
        for _ in range(2):
            await platform.runner.start(NewRun("u", "slow", 1, {}))
        run = await platform.runner.start(NewRun("v", "g", 1, {"a": 1}))
        async with asyncio.timeout(limit(10)):
            while (await platform.runs.get("v", "g", run.id)).status is not RunStatus.COMPLETED:
                await asyncio.sleep(0)
        newest, oldest = await platform.runs.newest("u", "slow", 2)
        assert (newest.status, oldest.status) == (RunStatus.QUEUED, RunStatus.RUNNING)


async def test_lists_of_runs_leave_large_outputs_out() -> None:
    async with opened(Clock()) as platform:
        for text in ("x", "x" * 20_000):
            run = await platform.runner.start(NewRun("u", "slow", 1, {}))
            await platform.runs.end(run.id, Outcome({"text": [text]}, None))
        large, small = await platform.runs.newest("u", "slow", 2)
        assert (large.output, small.output) == (None, {"text": ["x"]})
        assert (await platform.runs.get("u", "slow", large.id)).output == {"text": ["x" * 20_000]}


async def test_old_runs_are_forgotten() -> None:
    async with opened(Clock(), Limits(runs_kept_of_user=3)) as platform:
        runs = []
        await platform.graphs.put("v", "g", 1, adder())
        other = await platform.runner.start(NewRun("v", "g", 1, {"a": 1}))
        await platform.runner.cancel(other)
        for number in range(6):
            runs.append(await platform.runner.start(NewRun("u", "slow", 1, {}, payload=number)))
            if number != 0:
                await platform.runner.cancel(runs[-1])
        kept = {run.id for run in await platform.runs.newest("u", "slow", 20)}
        assert kept == {runs[0].id, *(run.id for run in runs[-3:])}
        assert (await platform.runs.get("v", "g", other.id)).id == other.id, "another user's runs do not count"


async def test_a_transaction_that_fails_changes_nothing_and_a_folder_has_one_user(tmp_path: Path) -> None:
    async with open_database(tmp_path / "data") as database:
        with pytest.raises(ZeroDivisionError):
            await database.transact(lambda c: (c.execute("INSERT INTO stored_values VALUES ('u','g','k','1')"), 1 // 0))
        assert await database.transact(lambda c: c.execute("SELECT count(*) FROM stored_values").fetchone()[0]) == 0
        with pytest.raises(FolderInUse):
            async with open_database(tmp_path / "data"):
                pass
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_the_database_goes_on_after_a_commit_that_failed() -> None:
    def break_a_reference(c: Connection) -> None:
        c.execute("PRAGMA defer_foreign_keys = ON")
        c.execute("INSERT INTO run_files VALUES ('no run', 'n', 't')")

    async with open_database(None) as database:
        with pytest.raises(sqlite3.IntegrityError):
            await database.transact(break_a_reference)
        assert await database.transact(lambda c: c.execute("SELECT count(*) FROM run_files").fetchone()[0]) == 0


async def test_the_database_goes_on_after_it_was_full() -> None:
    async with open_database(None) as database:
        await database.transact(lambda c: c.execute("SELECT 1").fetchone())
        # outside of a transaction, as an administrator's quota would
        await database.transact(lambda c: c.execute("PRAGMA max_page_count = 60").fetchone())
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await database.transact(
                lambda c: c.execute("INSERT INTO stored_values VALUES ('u','g','k', zeroblob(1000000) || '')")
            )
        assert await database.transact(lambda c: c.execute("SELECT count(*) FROM stored_values").fetchone()[0]) == 0


async def test_an_internal_error_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(runner, "execute", breaks)
    async with opened(Clock()) as platform:
        run = await platform.runner.start(NewRun("u", "g", 1, {"a": 1}))
        async with asyncio.timeout(limit(10)):
            while (found := await platform.runs.get("u", "g", run.id)).ended_at is None:
                await asyncio.sleep(0)
        assert (found.status, found.error) == (RunStatus.FAILED, "an internal error")


@pytest.mark.parametrize(
    "environment",
    [{"PLATFORM_PRIVATE_NETWORKS": "x"}, {"PLATFORM_MAX_NODES": "0"}, {"PLATFORM_RUN_SECONDS": "nan"}],
)
def test_options_that_are_not_valid_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidOption):
        read_platform_options(environment)


def test_options_come_from_the_environment() -> None:
    options = read_platform_options({"PLATFORM_DATA": "/d", "PLATFORM_API_KEY": "", "PLATFORM_RUN_SECONDS": "7"})
    assert (options.data, options.api_key, options.limits.run_seconds) == (Path("/d"), None, 7)


# --- services -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def web() -> AsyncIterator[WebClient]:
    async with open_web("127.0.0.1/32") as client:
        yield client


async def test_a_redirect_leads_to_permitted_addresses_only() -> None:
    async with receiver() as inbox, web() as client:
        inbox.answer_with([302])
        inbox.headers = {"location": f"http://127.0.0.2:{inbox.port}/"}
        with pytest.raises(BlockFailed, match="not permitted"):
            await client.send("GET", inbox.url(), {}, None)
        assert (await inbox.next()).path == "/"
        inbox.answer_with([302, 200])
        inbox.headers = {"location": "/there"}
        assert (await client.send("GET", inbox.url(), {}, None)).status == 200
        assert [(await inbox.next()).path for _ in range(2)] == ["/", "/there"]
        inbox.answer_with([302])
        assert (await client.send("POST", inbox.url(), {}, b"x")).status == 302


async def test_a_request_cannot_set_its_framing() -> None:
    async with receiver() as inbox, web() as client:
        await client.send("POST", inbox.url(), {"Host": "other", "Content-Length": "0", "x-a": "b"}, b"body")
        request = await inbox.next()
        assert (request.headers["host"], request.headers["x-a"]) == (f"127.0.0.1:{inbox.port}", "b")
        assert request.body == b"body"
        for headers in ({"x-a": "b\r\nx-b: c"}, {"x a": "b"}, {"": "b"}):
            with pytest.raises(BlockFailed):
                await client.send("GET", inbox.url(), headers, None)


async def test_a_large_answer_is_refused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n" + b"x" * (MAX_BYTES + 1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, web() as client:
        with pytest.raises(BlockFailed, match="larger than"):
            await client.send("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {}, None)
    assert OutsideAddresses("").permit("127.0.0.1") is False


async def test_the_model_is_an_openai_compatible_endpoint() -> None:
    """The messages and the answer are those of POST /v1/chat/completions in OpenAI's API reference."""
    answer = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "A summary"}}]}'
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        asked.extend([head, await reader.readexactly(length)])
        status = b"200 OK" if len(asked) == 2 else b"500 Oops"
        writer.write(
            b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(answer), answer)
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    options = PlatformOptions(model_url=url, model_name="m", model_key="secret")
    async with server, open_model(options) as model:
        assert await model.write("Summarise", "a text") == "A summary"
        with pytest.raises(BlockFailed, match="status 500") as caught:
            await model.write("Summarise", "a text")
    assert asked[0].startswith(b"POST /v1/chat/completions ")
    assert b"authorization: bearer secret" in asked[0].lower()
    assert b'"model":"m"' in asked[1]
    assert "secret" not in str(caught.value)
    async with open_model(PlatformOptions()) as model:
        assert isinstance(model, ScriptedModel)


@pytest.mark.parametrize(
    ("label", "kept"),
    [("utf-8", "utf-8"), ("windows-1252", "cp1252"), ("Shift_JIS", "shift_jis")]
    + [(odd, "utf-8") for odd in ("punycode", "idna", "unicode_escape", "utf-7", "base64", "nothing", "a\0b", "")],
)
def test_only_encodings_of_text_are_decoded(label: str, kept: str) -> None:
    assert readable_encoding(label) == kept


@pytest.mark.parametrize("base", ["http://127.0.0.1:8006", "http://127.0.0.1:8006/"])
@pytest.mark.parametrize(
    ("after", "permitted"),
    [("/api/x", True), ("9/api/x", False), ("@other.test/api/x", False), (".other.test/x", False)],
)
def test_outcomes_go_only_below_the_callback_base(base: str, after: str, permitted: bool) -> None:
    assert may_call_back(f"http://127.0.0.1:8006{after}", base) is permitted
    assert may_call_back(f"http://127.0.0.1:8006{after}", None)
    assert not may_call_back("httpx://x", None)
