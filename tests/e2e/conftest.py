"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import pytest

from tests.own_stores import generator, postgres_dsn, redis_dsn

__all__ = ["generator", "over_both_queues", "postgres_dsn", "redis_dsn"]

over_both_queues = pytest.mark.parametrize("servers", ["rabbitmq", "redis"], indirect=True, scope="module")
