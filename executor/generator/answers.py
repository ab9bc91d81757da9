"""The answers of the generator as values, and the readers of its JSON. Any other answer raises GeneratorFailure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from backend.chat.models import Json
from backend.chat.protocol.tool_responses import ClarifyingQuestion
from backend.json_client import strict_json
from executor.generator.failures import ErrorType, GeneratorFailure

MAX_TEXT_CHARS = 4_000
"""Longer reasons, goals and questions are cut."""
MAX_QUESTIONS = 20  # in one answer; more are an invalid answer
MAX_STEPS = 200  # in one answer; more are an invalid answer


@dataclass(frozen=True, slots=True)
class Instructions:
    """Instructions for making the agent: at least one step. The steps go back to the generator unchanged."""

    steps: tuple[Json, ...]

    def as_json(self) -> Json:
        return {"type": "instructions", "steps": list(self.steps)}


@dataclass(frozen=True, slots=True)
class ClarifyingQuestions:
    """Questions for the user, at least one, whose answers the generator needs."""

    questions: tuple[ClarifyingQuestion, ...]


@dataclass(frozen=True, slots=True)
class UnachievableGoal:
    """A goal that no agent can reach. `suggested_goal` is one that an agent can reach, or empty if there is none."""

    reason: str
    suggested_goal: str


@dataclass(frozen=True, slots=True)
class VagueGoal:
    """A goal that is described too vaguely. `suggested_goal` is a better description."""

    suggested_goal: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer that work was accepted. Its outcome comes by webhook or Redis Stream, with the operation's id."""


@dataclass(frozen=True, slots=True)
class AgentMade:
    """The finished agent. `agent_json` is a JSON object. Whether it is a valid agent is not checked here."""

    agent_json: Json


Goal: TypeAlias = Instructions | ClarifyingQuestions | UnachievableGoal | VagueGoal
WorkAnswer: TypeAlias = Pending | AgentMade | ClarifyingQuestions


def read_goal(body: bytes) -> Goal:
    """Reads the answer to a description. Raises GeneratorFailure."""
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
    """Reads the answer to work that was finished at once. Raises GeneratorFailure."""
    document = _read(body)
    if document.get("type") == "clarifying_questions":
        return _questions(document)
    agent = document.get("agent_json")
    if not isinstance(agent, dict):
        raise _unreadable("agent_json")
    return AgentMade(agent)


def _read(body: bytes) -> dict[str, Json]:
    """Returns the JSON object of a successful answer. Raises GeneratorFailure for any other answer."""
    try:
        document = strict_json.load(body)
    except ValueError:
        raise _unreadable("not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("success"), bool):
        raise _unreadable("success")
    if not document["success"]:
        raise GeneratorFailure.from_body(document)
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
