"""Turns the description of an agent into steps, or into a problem with it. Simple rules replace a model."""

from __future__ import annotations

import re
from typing import Any

from examples.agent_generator.blocks import EVENT, MANUAL, SCHEDULE, TIMED, WHEN, block_for
from examples.agent_generator.directives import lines_in, without_lines
from examples.agent_generator.recipes import recipe_for

MAX_STEPS = 12
_IMPOSSIBLE = re.compile(
    r"\b((?<!in )minds?|telepath\w*|teleport\w*|guarantee\w*|time.travel\w*|immortal\w*|perpetual)\b", re.IGNORECASE
)
_FILLER = re.compile(
    r"an?|the|my|me|i|we|our|us|it|this|that|some|something|anything|stuff|things|please|agents?|bot|assistant|help|make"
    r"|build|create|do|automat\w+|want|need|would|like|could|can|you|to|for|with|of|and"
)
_ASKS = re.compile(r"\bask me\b|\?(?!\S)", re.IGNORECASE)
_TAKES_OR_GIVES = re.compile(
    r"\b(takes?|asks? for|receives?|accepts?|expects?|given|returns?|outputs?|shows?|displays?|prints?|gives? back)\b",
    re.IGNORECASE,
)
"""Says that an agent has inputs or outputs, which a recipe adds by itself."""
_CLAUSE = re.compile(r"\.+(?:\s+|$)|[;\n]+\s*|,?\s+(?:and )?then\s+|,\s*(?:and\s+)?|\s+and\s+(?!-?\d)", re.IGNORECASE)


def decompose(
    description: str, user_instruction: str | None, library_agents: list[Any], wanted: str | None = None
) -> dict[str, Any]:
    """Returns the answer to POST /api/decompose-description. `wanted` forces its type."""
    text = " ".join(without_lines(description).split())
    kind = wanted or _kind_of(text, user_instruction)
    answer: dict[str, Any] = {"success": True, "type": kind}
    if kind == "unachievable_goal":
        found = _IMPOSSIBLE.search(text)
        reason = f"No agent can do this: it can work with data and services, not with “{found[0] if found else text}”."
        return {
            **answer,
            "reason": reason,
            "suggested_goal": "Collect news about this every morning and mail me a summary",
        }
    if kind == "vague_goal":
        return {**answer, "suggested_goal": _better(text)}
    if kind == "clarifying_questions":
        return {**answer, "questions": _questions_about(text)}
    return {**answer, "steps": _steps_of(text, user_instruction, library_agents, lines_in(description))}


def _kind_of(text: str, user_instruction: str | None) -> str:
    if _IMPOSSIBLE.search(text):
        return "unachievable_goal"
    if recipe_for(text) and not _ASKS.search(text):
        return "instructions"
    words = re.findall(r"[^\W_]+", text.lower())
    if len(words) < 3 or len([word for word in words if not _FILLER.fullmatch(word)]) < 2:
        return "vague_goal"
    if user_instruction and without_lines(user_instruction):
        return "instructions"
    trigger_known = SCHEDULE.search(text) or WHEN.search(text)
    return "instructions" if trigger_known and not _ASKS.search(text) else "clarifying_questions"


def _better(text: str) -> str:
    subject = " ".join(word for word in re.findall(r"[^\W_]+", text) if not _FILLER.fullmatch(word.lower()))
    return f"Every morning, search the web for news about {subject or 'my business'} and mail me a short summary"


def _questions_about(text: str) -> list[dict[str, str]]:
    questions = []
    if not (SCHEDULE.search(text) or WHEN.search(text)):
        when = {"question": "When should the agent run?", "keyword": "trigger", "example": "every morning at 8"}
        questions.append(when)
    if _ASKS.search(text) or not questions:
        where = {"question": "Where should the result go?", "keyword": "output", "example": "a mail to me"}
        questions.append(where)
    return questions


def _steps_of(text: str, user_instruction: str | None, library_agents: list[Any], lines: list[str]) -> list[Any]:
    whole = f"{text}. {without_lines(user_instruction)}" if user_instruction else text
    trigger = SCHEDULE.search(whole) or (None if recipe_for(text) else WHEN.search(whole))
    name = MANUAL if trigger is None else (TIMED if trigger.re is SCHEDULE else EVENT)
    steps: list[dict[str, Any]] = [_step(1, "trigger", name, trigger[0] if trigger else "started by hand")]
    for clause in _clauses_of(whole, trigger[0] if trigger is not None else None):
        if len(steps) <= MAX_STEPS:
            steps.append(_step(len(steps) + 1, "act", *_performed_by(clause, library_agents)))
    # Directives must reach the request that follows, which contains only these steps.
    return steps + [{"action": "note", "description": f"[generator: {line}]"} for line in lines]


def _clauses_of(text: str, trigger: str | None) -> list[str]:
    """Returns the acts of a description. What starts the agent is no act, unless there is nothing else."""
    acts = _acts_in(text.replace(trigger, "", 1)) if trigger is not None else []
    return acts or _acts_in(text)


def _acts_in(text: str) -> list[str]:
    """Returns the acts without those that recipes imply: to take the inputs, to give the output."""
    acts: list[str] = []
    recipes = 0
    for clause in (clause.strip(" ,?!") for clause in _CLAUSE.split(text)):
        recipe = recipe_for(clause)
        implied = _TAKES_OR_GIVES.search(clause) and (recipes or (recipe is None and recipe_for(text)))
        if len(clause) > 2 and not implied:
            acts.append(clause)
            recipes += recipe is not None
    return acts


def _performed_by(clause: str, library_agents: list[Any]) -> tuple[str, str]:
    for agent in library_agents:
        name = agent.get("name") if isinstance(agent, dict) else None
        if isinstance(name, str) and name and name.lower() in clause.lower():
            return f"Agent: {name}", clause
    return block_for(clause), clause


def _step(number: int, action: str, block_name: str, description: str) -> dict[str, Any]:
    return {"step_number": number, "action": action, "block_name": block_name, "description": description[:500]}
