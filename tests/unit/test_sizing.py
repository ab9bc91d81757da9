"""Tests of the calculator of bench/sizing.py, and of the page that shows what it prints."""

from __future__ import annotations

import re

import pytest

from bench.sizing import (
    API_DELTA,
    COSTS,
    EXECUTOR_DELTA,
    REDIS_DELTA,
    Curve,
    Load,
    apis,
    costs,
    executors,
    main,
    postgres,
    rabbitmq,
    read_arguments,
    redis,
    table,
)
from tests import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text()


def test_a_curve_is_exact_at_its_points_and_flat_outside_of_them() -> None:
    curve = Curve(((100, 8), (1_000, 4), (10_000, 1)))
    assert [curve.at(rate) for rate in (1, 100, 1_000, 10_000, 1e9)] == [8, 8, 4, 1, 1]
    assert curve.at(316.2) == pytest.approx(6, abs=0.01)  # the middle between 100 and 1,000, by the logarithm


@pytest.mark.parametrize("curve", [API_DELTA, EXECUTOR_DELTA, REDIS_DELTA])
def test_a_delta_costs_less_beside_more_of_them(curve: Curve) -> None:
    rates, micros = zip(*curve.points, strict=True)
    assert list(rates) == sorted(rates)
    assert list(micros) == sorted(micros, reverse=True)


def test_every_usual_cost_is_within_what_was_seen() -> None:
    assert [name for name, cost in COSTS.items() if not cost.low <= cost.usual <= cost.high] == []


@pytest.mark.parametrize("streams", [1, 63, 1_000, 10_000, 100_000])
@pytest.mark.parametrize("concurrency", [64, 500])
def test_no_process_is_busier_or_fuller_than_allowed(streams: int, concurrency: int) -> None:
    load = Load(streams, concurrency=concurrency)
    for processes in (apis(load), executors(load)):
        assert processes.cores <= load.busy
        assert processes.count * processes.streams == pytest.approx(streams)
    assert executors(load).streams <= 0.75 * concurrency
    assert redis(load).masters * load.busy >= redis(load).cores


def test_one_process_fewer_would_be_too_busy() -> None:
    load = Load(10_000)
    least = apis(load)
    turns = load.turns * COSTS["API, CPU of a turn, ms"].usual * 1e-3
    fewer = least.count - 1
    deltas = load.deltas * API_DELTA.at(load.deltas / fewer) * 1e-6
    assert (deltas + turns) / fewer > load.busy


def test_what_depends_on_turns_grows_with_them() -> None:
    short, long = Load(1_000, turn_seconds=30), Load(1_000, turn_seconds=60)
    assert short.turns == 2 * long.turns
    assert rabbitmq(short).messages == 2 * rabbitmq(long).messages
    assert postgres(short).growth == pytest.approx(2 * postgres(long).growth)
    assert redis(short).running < redis(long).running


def test_the_memory_of_ended_streams_is_proportional_to_their_time_to_live() -> None:
    assert redis(Load(1_000, stream_ttl=300)).ended == pytest.approx(redis(Load(1_000)).ended / 12)


def test_every_process_has_a_pool_of_connections() -> None:
    load = Load(10_000, pool_size=5)
    assert postgres(load).connections == 5 * (apis(load).count + executors(load).count)


def test_a_known_plan() -> None:
    """Worked out by hand: 60 streams of one delta a second, a turn of a minute, so one turn a second."""
    load = Load(60, per_second=1, turn_seconds=60)
    assert (load.turns, load.deltas) == (1, 60)
    assert apis(load).count == executors(load).count == 1
    assert apis(load).cores == pytest.approx(60 * 88e-6 + 6.7e-3)
    assert postgres(load).transactions == pytest.approx(8 + 2)
    assert redis(load).ended == pytest.approx(3_600 * (2_700 + 60 * 82) / 1e9)
    assert rabbitmq(load).connections == 4


@pytest.mark.parametrize("wrong", ["--streams 0", "--busy 0", "--turn-seconds -1", "--streams many"])
def test_a_number_that_makes_no_sense_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        read_arguments(wrong.split())
    assert refused.value.code == 2
    assert wrong.split()[0] in capsys.readouterr().err


def test_the_page_shows_what_the_calculator_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr().out.strip()
    assert printed == table([Load(streams) for streams in (1_000, 10_000, 100_000)])
    assert printed in PAGE, "run python -m bench.sizing and put its table into docs/scale.md"
    assert costs() in PAGE, "run python -m bench.sizing --costs and put its second table into docs/scale.md"


def test_the_commands_on_the_page_are_taken() -> None:
    commands = re.findall(r"python -m bench\.sizing([^`\n#]*)", PAGE)
    assert commands
    for arguments in commands:
        read_arguments(arguments.split())
