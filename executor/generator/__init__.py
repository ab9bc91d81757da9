"""The agent generator: a service of somebody else that makes agents, and our client of it (contract, section 4)."""

from __future__ import annotations

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
from executor.generator.client import Generator, open_generator
from executor.generator.failures import ErrorType, GeneratorFailure
from executor.generator.work import Work

__all__ = [
    "AgentMade",
    "ClarifyingQuestions",
    "ErrorType",
    "Generator",
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
