"""Calculates what a number of open streams needs of each part, from measured costs.

Usage: python -m bench.sizing [--streams 1000 10000 100000] [--per-second 5] [--turn-seconds 60] [--concurrency 500]
[--stream-ttl 3600] [--pool-size 10] [--busy 0.6] [--costs]

An open stream is a turn that runs and one client that reads it. The costs were measured by `bench.store_costs` on one
machine of two cores, 2026-12-01. `--costs` prints them with their range. docs/scale.md shows the result, and says how
far each figure can be trusted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DAY = 86_400
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A measured cost: what was seen mostly, and the lowest and highest of all runs."""

    usual: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """CPU microseconds of a delta, which depend on how many deltas a second one process has, since they share packets.

    `points` are pairs of deltas a second and microseconds, in order.
    """

    points: Sequence[tuple[float, float]]

    def at(self, rate: float) -> float:
        """Returns the cost at a rate: between two points by the logarithm of the rate, outside of them the nearest."""
        if rate <= self.points[0][0]:
            return self.points[0][1]
        for (slower, dear), (faster, cheap) in zip(self.points, self.points[1:], strict=False):
            if rate <= faster:
                share = math.log(rate / slower) / math.log(faster / slower)
                return dear + share * (cheap - dear)
        return self.points[-1][1]


API_DELTA = Curve(((500, 88), (1_500, 60), (4_400, 40)))
EXECUTOR_DELTA = Curve(((500, 244), (1_500, 138), (4_400, 76)))
REDIS_DELTA = Curve(((500, 79), (1_500, 48), (4_400, 25)))
"""By the rate of one executor: what it sends to Redis at a time is one call."""

COSTS = {
    "API, CPU of a turn, ms": Cost(6.7, 4.2, 7.7),
    "executor, CPU of a turn, ms": Cost(9.5, 6.7, 15.8),
    "Redis, CPU of a turn, ms": Cost(1.2, 0.9, 1.6),
    "Postgres, CPU of a turn, ms": Cost(5.2, 4.0, 6.9),
    "RabbitMQ, CPU of a turn, ms": Cost(1.5, 1.1, 2.3),
    "Postgres, transactions of a turn": Cost(8.0, 7.7, 8.4),
    "Postgres, WAL of a turn, KB": Cost(56, 12, 85),
    "Postgres, growth by a turn, KB": Cost(33, 5, 50),
    "Redis, commands of a turn": Cost(38, 36, 41),
    "Redis, commands of a delta": Cost(4.2, 3.8, 4.5),
    "Redis, bytes in for a delta": Cost(209, 187, 233),
    "Redis, bytes out for a delta": Cost(210, 192, 211),
    "Redis, memory of a stream without deltas, KB": Cost(2.7, 2.0, 3.0),
    "Redis, memory of a delta in a stream, bytes": Cost(82, 70, 85),
    "API, memory of a process, MB": Cost(93, 90, 95),
    "API, memory of an open stream, KB": Cost(53, 35, 59),
    "executor, memory of a process, MB": Cost(106, 105, 110),
    "executor, memory of a running turn, KB": Cost(110, 41, 151),
    "transactions of a process a second, idle": Cost(1, 0.8, 2),
    "commands to Redis of an executor a second, idle": Cost(3, 3, 5),
    "open files of a process besides streams": Cost(50, 46, 60),
}


def usual(name: str) -> float:
    return COSTS[name].usual


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for. `busy` is the share of a core that a process, or a master of Redis, may be busy."""

    streams: int
    per_second: float = 5
    turn_seconds: float = 60
    concurrency: int = 500
    stream_ttl: float = 3_600
    pool_size: int = 10
    busy: float = 0.6

    @property
    def turns(self) -> float:
        """Turns a second: as many begin as end."""
        return self.streams / self.turn_seconds

    @property
    def deltas(self) -> float:
        """Deltas a second."""
        return self.streams * self.per_second

    @property
    def deltas_of_a_turn(self) -> float:
        return self.per_second * self.turn_seconds


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes of a kind are needed, and what each of them has and uses."""

    count: int
    streams: float
    cores: float
    megabytes: float
    open_files: float


def apis(load: Load) -> Processes:
    def cores(count: int) -> float:
        delta = API_DELTA.at(load.deltas / count) * 1e-6
        return (load.deltas * delta + load.turns * usual("API, CPU of a turn, ms") * 1e-3) / count

    return _processes(load, _fewest(cores, load.busy), cores, "API", "an open stream")


def executors(load: Load) -> Processes:
    """Executors are limited by their slots, too: three of four may be taken."""

    def cores(count: int) -> float:
        delta = EXECUTOR_DELTA.at(load.deltas / count) * 1e-6
        return (load.deltas * delta + load.turns * usual("executor, CPU of a turn, ms") * 1e-3) / count

    count = max(_fewest(cores, load.busy), math.ceil(load.streams / (0.75 * load.concurrency)))
    return _processes(load, count, cores, "executor", "a running turn")


def _processes(load: Load, count: int, cores: Callable[[int], float], kind: str, what: str) -> Processes:
    streams = load.streams / count
    megabytes = usual(f"{kind}, memory of a process, MB") + streams * usual(f"{kind}, memory of {what}, KB") / 1e3
    return Processes(
        count, streams, cores(count), megabytes, streams + usual("open files of a process besides streams")
    )


def _fewest(cores: Callable[[int], float], busy: float) -> int:
    """Returns the lowest number of processes of which none is busier. `cores` falls as the number grows."""
    count = 1
    while cores(count) > busy:
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class Redis:
    """`masters` are those that the CPU needs; memory is in gigabytes, traffic in megabytes a second."""

    commands: float
    cores: float
    masters: int
    running: float
    ended: float
    written: float
    read: float


def redis(load: Load) -> Redis:
    of_executor = load.deltas / executors(load).count
    cores = load.deltas * REDIS_DELTA.at(of_executor) * 1e-6 + load.turns * usual("Redis, CPU of a turn, ms") * 1e-3
    commands = load.deltas * usual("Redis, commands of a delta") + load.turns * usual("Redis, commands of a turn")
    commands += executors(load).count * usual("commands to Redis of an executor a second, idle")
    of_stream = usual("Redis, memory of a stream without deltas, KB") * 1e3
    of_delta = usual("Redis, memory of a delta in a stream, bytes")
    half, whole = of_stream + of_delta * load.deltas_of_a_turn / 2, of_stream + of_delta * load.deltas_of_a_turn
    return Redis(
        commands,
        cores,
        math.ceil(cores / load.busy),
        load.streams * half / 1e9,
        load.turns * load.stream_ttl * whole / 1e9,
        load.deltas * usual("Redis, bytes in for a delta") / 1e6,
        load.deltas * usual("Redis, bytes out for a delta") / 1e6,
    )


@dataclass(frozen=True, slots=True)
class Postgres:
    """`wal` is in megabytes a second, `growth` in gigabytes a day at this load all day."""

    transactions: float
    cores: float
    wal: float
    growth: float
    connections: int


def postgres(load: Load) -> Postgres:
    processes = apis(load).count + executors(load).count
    return Postgres(
        load.turns * usual("Postgres, transactions of a turn")
        + processes * usual("transactions of a process a second, idle"),
        load.turns * usual("Postgres, CPU of a turn, ms") * 1e-3,
        load.turns * usual("Postgres, WAL of a turn, KB") / 1e3,
        load.turns * usual("Postgres, growth by a turn, KB") * DAY / 1e6,
        processes * load.pool_size,
    )


@dataclass(frozen=True, slots=True)
class RabbitMq:
    """`messages` are published a second; each is confirmed, delivered and acknowledged once."""

    messages: float
    cores: float
    connections: int


def rabbitmq(load: Load) -> RabbitMq:
    cores = load.turns * usual("RabbitMQ, CPU of a turn, ms") * 1e-3
    return RabbitMq(load.turns, cores, apis(load).count + 3 * executors(load).count)


def table(loads: Sequence[Load]) -> str:
    """Returns a Markdown table with a column for each load."""
    lines = [["", *(f"{load.streams:,} streams" for load in loads)], ["---", *("---:" for _ in loads)]]
    lines += [[name, *(_shown(of(load)) for load in loads)] for name, of in ROWS]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: float) -> str:
    return (
        f"{value:,.0f}" if isinstance(value, int) or value >= 20 else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"
    )


ROWS: Sequence[tuple[str, Callable[[Load], float]]] = (
    ("turns that begin a second", lambda load: load.turns),
    ("deltas a second", lambda load: load.deltas),
    ("**API**, processes", lambda load: apis(load).count),
    ("streams of each", lambda load: apis(load).streams),
    ("CPU of each, cores", lambda load: apis(load).cores),
    ("memory of each, MB", lambda load: apis(load).megabytes),
    ("open files of each", lambda load: apis(load).open_files),
    ("**executor**, processes", lambda load: executors(load).count),
    ("turns of each", lambda load: executors(load).streams),
    ("CPU of each, cores", lambda load: executors(load).cores),
    ("memory of each, MB", lambda load: executors(load).megabytes),
    ("open files of each", lambda load: executors(load).open_files),
    ("**Redis**, CPU, cores", lambda load: redis(load).cores),
    ("masters", lambda load: redis(load).masters),
    ("commands a second, those in scripts included", lambda load: redis(load).commands),
    ("memory of running streams, GB", lambda load: redis(load).running),
    ("memory of ended streams for `STREAM_TTL`, GB", lambda load: redis(load).ended),
    ("written to it, MB/s", lambda load: redis(load).written),
    ("read from it, nearly all by pub/sub, MB/s", lambda load: redis(load).read),
    ("**Postgres**, CPU, cores", lambda load: postgres(load).cores),
    ("transactions a second", lambda load: postgres(load).transactions),
    ("WAL, MB/s", lambda load: postgres(load).wal),
    ("growth in a day of this load, GB", lambda load: postgres(load).growth),
    ("connections", lambda load: postgres(load).connections),
    ("**RabbitMQ**, CPU, cores", lambda load: rabbitmq(load).cores),
    ("messages a second", lambda load: rabbitmq(load).messages),
    ("connections", lambda load: rabbitmq(load).connections),
)


def costs() -> str:
    """Returns a Markdown table of the measured costs."""
    lines = ["| cost | usual | lowest | highest |", "|---|---:|---:|---:|"]
    for name, curve in (("API", API_DELTA), ("executor", EXECUTOR_DELTA), ("Redis", REDIS_DELTA)):
        lines += [f"| {name}, CPU of a delta at {rate:,.0f}/s, µs | {cost:.0f} | | |" for rate, cost in curve.points]
    lines += [f"| {name} | {cost.usual:g} | {cost.low:g} | {cost.high:g} |" for name, cost in COSTS.items()]
    return "\n".join(lines)


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line. Exits with 2 if a number is not positive."""
    parser = argparse.ArgumentParser(description="what a number of open streams needs")
    parser.add_argument("--streams", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--per-second", type=float, default=5, help="deltas a second of each stream")
    parser.add_argument("--turn-seconds", type=float, default=60)
    parser.add_argument("--concurrency", type=int, default=500, help="EXECUTOR_CONCURRENCY")
    parser.add_argument("--stream-ttl", type=float, default=3_600, help="STREAM_TTL")
    parser.add_argument("--pool-size", type=int, default=10, help="DB_POOL_SIZE")
    parser.add_argument("--busy", type=float, default=0.6, help="share of a core that a process may use")
    parser.add_argument("--costs", action="store_true", help="print the measured costs")
    given = parser.parse_args(arguments)
    for name in ("per_second", "turn_seconds", "concurrency", "stream_ttl", "pool_size", "busy"):
        if not getattr(given, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if min(given.streams) < 1:
        parser.error("--streams must be above 0")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = read_arguments(arguments)
    rest = {name: value for name, value in vars(given).items() if name not in {"streams", "costs"}}
    print(table([Load(streams, **rest) for streams in given.streams]))
    if given.costs:
        print(f"\n{costs()}")


if __name__ == "__main__":
    main()
