"""What fault tests share: the seed of a run, and the figures at its end."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.faults.figures import said
from tests.faults.rig.supervisor import Stores
from tests.faults.scale import new_seed
from tests.servers.postgres import PostgresNode
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode


@pytest.fixture
def seed() -> int:
    """Printed, so that a failure shows it: FAULT_SEED=… runs the same again."""
    number = new_seed()
    print(f"FAULT_SEED={number}")
    return number


@pytest.fixture
def chance(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def stores(private_postgres: PostgresNode, private_redis: RedisNode, private_rabbitmq: RabbitNode) -> Stores:
    """The three stores of a rig, all of them this test's to hurt."""
    return Stores(private_postgres, private_redis, private_rabbitmq)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if said:
        terminalreporter.section("figures of the fault tests")
        for line in said:
            terminalreporter.write_line(line)
