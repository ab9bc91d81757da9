"""Outcomes of operations, from what the generator answers at once."""

from __future__ import annotations

from backend.chat.models import Json
from backend.chat.outcomes import Outcome
from executor.generator.answers import AgentMade, ClarifyingQuestions, WorkAnswer
from executor.generator.failures import GeneratorFailure


def outcome_of(answer: WorkAnswer) -> Outcome:
    """Returns the outcome in an answer. A `Pending` has none yet."""
    match answer:
        case AgentMade(agent_json):
            return Outcome(True, {"agent_json": agent_json})
        case ClarifyingQuestions(questions):
            asked = [question.model_dump(exclude_none=True) for question in questions]
            return Outcome(True, {"type": "clarifying_questions", "questions": asked})
    raise AssertionError("an answer that is pending has no outcome yet")


def failed(failure: GeneratorFailure) -> Outcome:
    details: Json = {"error_type": failure.error_type.value, "details": failure.details}
    return Outcome(False, details, failure.message)
