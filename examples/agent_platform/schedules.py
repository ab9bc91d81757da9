"""Schedules: the times at which a user's graph runs by itself."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from cronsim import CronSim, CronSimError

from examples.agent_platform.database import Connection, Database
from examples.agent_platform.options import Limits
from examples.agent_platform.problems import Problem, invalid_request, not_found

FIELDS = 5
DUE_AT_ONCE = 100


def next_after(cron: str, timezone: str, after: datetime) -> datetime:
    """Returns the next time of a cron expression, in UTC. Raises Problem: 400.

    CronSim follows Debian's cron: Sunday is 0 or 7, and a time that a change of clocks leaves out comes right after it.
    """
    if len(cron.split()) != FIELDS:
        raise invalid_request("cron has five fields: minute, hour, day of the month, month, day of the week.")
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise invalid_request("timezone is no name of the IANA time zone database.") from None
    try:
        return next(CronSim(cron, after.astimezone(zone))).astimezone(UTC)
    except (CronSimError, StopIteration, OverflowError):
        raise invalid_request("cron is not valid, or it names a time that never comes.") from None


@dataclass(frozen=True, slots=True)
class NewSchedule:
    user_id: str
    graph_id: str
    version: int
    name: str
    cron: str
    timezone: str
    node_input: Mapping[str, Any]
    key: str | None = None

    @property
    def fingerprint(self) -> str:
        parts = [self.graph_id, self.version, self.name, self.cron, self.timezone, self.node_input]
        return sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Schedule:
    id: str
    user_id: str
    graph_id: str
    version: int
    name: str
    cron: str
    timezone: str
    node_input: Mapping[str, Any]
    paused: bool
    next_run_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "graph_id": self.graph_id,
            "version": self.version,
            "name": self.name,
            "cron": self.cron,
            "timezone": self.timezone,
            "node_input": self.node_input,
            "paused": self.paused,
            "next_run_at": None if self.paused else self.next_run_at.isoformat(),
        }


class Schedules:
    """Users see only their own schedules."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def create(self, new: NewSchedule, now: datetime) -> Schedule:
        """Returns the schedule. The same key makes it once. Raises Problem: 400, 409."""
        due = next_after(new.cron, new.timezone, now).timestamp()

        def act(c: Connection) -> Schedule:
            found = _find(c, "user_id = ? AND key = ?", [new.user_id, new.key]) if new.key is not None else None
            if found is not None:
                if found["fingerprint"] != new.fingerprint:
                    raise Problem(409, "conflict", "This idempotency key was used for another request.")
                return _schedule(found)
            (count,) = c.execute("SELECT count(*) FROM schedules WHERE user_id = ?", [new.user_id]).fetchone()
            if count >= self._limits.schedules_of_user:
                raise Problem(409, "conflict", f"A user may have at most {count} schedules.")
            id, node_input = str(uuid.uuid4()), orjson.dumps(new.node_input).decode()
            c.execute(
                "INSERT INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
                [id, new.user_id, new.graph_id, new.version, new.name, new.cron, new.timezone, node_input, due,
                 new.key, new.fingerprint],
            )  # fmt: skip
            return _schedule(_find(c, "id = ?", [id]))

        return await self._database.transact(act)

    async def of_user(self, user_id: str, graph_id: str | None) -> list[Schedule]:
        def act(c: Connection) -> list[Schedule]:
            statement = "SELECT * FROM schedules WHERE user_id = ? AND graph_id = coalesce(?, graph_id) ORDER BY rowid"
            return [_schedule(row) for row in c.execute(statement, [user_id, graph_id])]

        return await self._database.transact(act)

    async def pause(self, user_id: str, id: str, paused: bool, now: datetime) -> Schedule:
        """Pauses a schedule, or has it go on with the next time after now. Raises Problem: 404."""

        def act(c: Connection) -> Schedule:
            schedule = _owned(c, user_id, id)
            due = schedule.next_run_at
            if schedule.paused and not paused:
                due = next_after(schedule.cron, schedule.timezone, now)
            c.execute("UPDATE schedules SET paused = ?, next_run_at = ? WHERE id = ?", [paused, due.timestamp(), id])
            return _schedule(_find(c, "id = ?", [id]))

        return await self._database.transact(act)

    async def delete(self, user_id: str, id: str) -> None:
        """Deletes a schedule. Raises Problem: 404."""

        def act(c: Connection) -> None:
            _owned(c, user_id, id)
            c.execute("DELETE FROM schedules WHERE id = ?", [id])

        await self._database.transact(act)

    async def due(self, now: datetime, after: tuple[float, str] = (0.0, "")) -> list[Schedule]:
        """Returns up to DUE_AT_ONCE schedules that are due, in the order of time and id, those behind `after`."""

        def act(c: Connection) -> list[Schedule]:
            statement = (
                "SELECT * FROM schedules WHERE paused = 0 AND next_run_at <= ? AND (next_run_at, id) > (?, ?)"
                " ORDER BY next_run_at, id LIMIT ?"
            )
            return [_schedule(row) for row in c.execute(statement, [now.timestamp(), *after, DUE_AT_ONCE])]

        return await self._database.transact(act)

    async def next_time(self) -> datetime | None:
        """Returns the earliest time at which a schedule is due."""

        def act(c: Connection) -> float | None:
            (time,) = c.execute("SELECT min(next_run_at) FROM schedules WHERE paused = 0").fetchone()
            return None if time is None else float(time)

        time = await self._database.transact(act)
        return None if time is None else datetime.fromtimestamp(time, UTC)

    async def advance(self, schedule: Schedule, now: datetime) -> None:
        """Sets the next time after now, unless the schedule was changed meanwhile. Raises Problem if there is none."""
        due = next_after(schedule.cron, schedule.timezone, now).timestamp()

        def act(c: Connection) -> None:
            c.execute(
                "UPDATE schedules SET next_run_at = ? WHERE id = ? AND next_run_at = ?",
                [due, schedule.id, schedule.next_run_at.timestamp()],
            )

        await self._database.transact(act)


def _find(c: Connection, condition: str, values: list[Any]) -> Any:
    return c.execute(f"SELECT * FROM schedules WHERE {condition}", values).fetchone()  # noqa: S608 - a constant


def _owned(c: Connection, user_id: str, id: str) -> Schedule:
    row = _find(c, "id = ? AND user_id = ?", [id, user_id])
    if row is None:
        raise not_found("schedule")
    return _schedule(row)


def _schedule(row: Any) -> Schedule:
    return Schedule(
        row["id"], row["user_id"], row["graph_id"], row["version"], row["name"], row["cron"], row["timezone"],
        orjson.loads(row["node_input"]), bool(row["paused"]), datetime.fromtimestamp(row["next_run_at"], UTC),
    )  # fmt: skip
