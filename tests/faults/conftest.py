"""Fixtures of the fault tests: the seed of a run, and private stores."""

from __future__ import annotations

from random import Random

import pytest

from tests.faults.rig.supervisor import Stores
from tests.faults.scale import new_seed
from tests.own_stores import generator, postgres_dsn, redis_dsn
from tests.servers.postgres import PostgresNode
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode

__all__ = ["generator", "postgres_dsn", "redis_dsn"]


@pytest.fixture
def seed() -> int:
    """The seed of this run. It is printed, and FAULT_SEED=… repeats the run."""
    number = new_seed()
    print(f"FAULT_SEED={number}")
    return number


@pytest.fixture
def chance(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def stores(private_postgres: PostgresNode, private_redis: RedisNode, private_rabbitmq: RabbitNode) -> Stores:
    """The private stores of a rig, which the test may kill and freeze."""
    return Stores(private_postgres, private_redis, private_rabbitmq)
