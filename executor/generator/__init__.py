"""A client of the agent generator, an external service that makes agents (contract, section 4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.config import Settings
from executor.generator.answers import (
    AgentMade,
    ClarifyingQuestions,
    Goal,
    Instructions,
    Pending,
    UnachievableGoal,
    VagueGoal,
    WorkAnswer,
)
from executor.generator.failures import ErrorType, GeneratorFailure
from executor.generator.work import Work

if TYPE_CHECKING:  # its HTTP client takes 15 ms to import, which an executor without a generator saves
    from backend.json_client.calls import CallLimits
    from executor.generator.client import Generator

__all__ = [
    "AgentMade",
    "ClarifyingQuestions",
    "ErrorType",
    "GeneratorFailure",
    "Goal",
    "Instructions",
    "Pending",
    "UnachievableGoal",
    "VagueGoal",
    "Work",
    "WorkAnswer",
    "open_generator",
]


@asynccontextmanager
async def open_generator(settings: Settings, limits: CallLimits | None = None) -> AsyncIterator[Generator | None]:
    """Yields the client, or None if AGENTGENERATOR_HOST is not set. Raises ConfigError if a setting is wrong."""
    if settings.agentgenerator_host is None:
        yield None
        return
    from executor.generator.client import open_client  # see above

    async with open_client(settings, settings.agentgenerator_host, limits) as generator:
        yield generator
