"""What the generator may answer, as values, and how its JSON is read. Whatever it sends: one of these, or a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from backend.chat.models import Json
from backend.chat.tool_responses import ClarifyingQuestion
from executor.generator import strict_json
from executor.generator.failures import ErrorType, GeneratorFailure

MAX_TEXT_CHARS = 4_000
"""Longer reasons, goals and questions are cut."""
MAX_QUESTIONS = 20
MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class Instructions:
    """How to make the agent: one step or more, as the generator wrote them. They go back to it as they are."""

    steps: tuple[Json, ...]

    def as_json(self) -> Json:
        return {"type": "instructions", "steps": list(self.steps)}


@dataclass(frozen=True, slots=True)
class ClarifyingQuestions:
    """The generator has to know more: one question or more for the user."""

    questions: tuple[ClarifyingQuestion, ...]


@dataclass(frozen=True, slots=True)
class UnachievableGoal:
    """No agent can do this; `suggested_goal` could be done, and is empty when the generator knows of none."""

    reason: str
    suggested_goal: str


@dataclass(frozen=True, slots=True)
class VagueGoal:
    """The description says too little; `suggested_goal` says it better."""

    suggested_goal: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Accepted: the outcome comes to the webhook or to the Redis Stream, under the operation's id."""


@dataclass(frozen=True, slots=True)
class AgentMade:
    """The agent at once. `agent_json` is an object; that it is a working agent is not checked here."""

    agent_json: Json


Goal: TypeAlias = Instructions | ClarifyingQuestions | UnachievableGoal | VagueGoal
WorkAnswer: TypeAlias = Pending | AgentMade | ClarifyingQuestions


def read_goal(body: bytes) -> Goal:
    """The answer to a description. Raises GeneratorFailure."""
    document = _read(body)
    match document.get("type"):
        case "instructions":
            return Instructions(tuple(_some(document, "steps", MAX_STEPS)))
        case "clarifying_questions":
            return _questions(document)
        case "unachievable_goal":
            return UnachievableGoal(_text(document, "reason"), _text(document, "suggested_goal", needed=False))
        case "vague_goal":
            return VagueGoal(_text(document, "suggested_goal"))
    raise _unreadable("type")


def read_made(body: bytes) -> AgentMade | ClarifyingQuestions:
    """The answer to work that was done at once. Raises GeneratorFailure."""
    document = _read(body)
    if document.get("type") == "clarifying_questions":
        return _questions(document)
    agent = document.get("agent_json")
    if not isinstance(agent, dict):
        raise _unreadable("agent_json")
    return AgentMade(agent)


def _read(body: bytes) -> dict[str, Json]:
    """The object of a successful answer."""
    try:
        document = strict_json.load(body)
    except ValueError:
        raise _unreadable("not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("success"), bool):
        raise _unreadable("success")
    if not document["success"]:
        raise GeneratorFailure.said(document)
    return document


def _questions(document: dict[str, Json]) -> ClarifyingQuestions:
    return ClarifyingQuestions(tuple(_question(one) for one in _some(document, "questions", MAX_QUESTIONS)))


def _question(given: Json) -> ClarifyingQuestion:
    if not isinstance(given, dict):
        raise _unreadable("questions")
    example = _text(given, "example", needed=False)
    return ClarifyingQuestion(
        question=_text(given, "question"), keyword=_text(given, "keyword"), example=example or None
    )


def _some(document: dict[str, Json], name: str, most: int) -> list[Json]:
    values = document.get(name)
    if not isinstance(values, list) or not 0 < len(values) <= most:
        raise _unreadable(name)
    return values


def _text(document: dict[str, Json], name: str, *, needed: bool = True) -> str:
    value = document.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value.strip()):
        raise _unreadable(name)
    return value.strip()[:MAX_TEXT_CHARS]


def _unreadable(what: str) -> GeneratorFailure:
    return GeneratorFailure(ErrorType.INVALID_RESPONSE, note=what)
