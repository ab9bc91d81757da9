"""Directives in the text of a request that say how to answer it, like `[generator: 202-stream delay=2]`.

    202-webhook | 202-stream | 200     the way the outcome is delivered
    delay S, late S                    the work takes S seconds
    progress [N]                       N progress reports (3)
    fail [error_type=NAME]             the work fails
    clarify                            (with 200) the answer is questions instead of an agent
    duplicate N                        the outcome is delivered N times
    signed | keyed                     the webhook carries a signature, or the key
    status N [times=K] [retry-after=S] the request gets this status, the first K times (always)
    malformed | huge | drop            the answer is not JSON, is too large, breaks off (the first K times)
    answer NAME                        (decompose) instructions, clarifying_questions, unachievable_goal, vague_goal

A line that begins with `decompose` applies to POST /api/decompose-description; all others apply to the work.
A value follows its word after a space or an equals sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from examples.agent_generator.options import Options

_LINE = re.compile(r"\[generator:\s*([^\]\n]*)\]")
_FAULTS = ("malformed", "huge", "drop")
_GOALS = ("instructions", "clarifying_questions", "unachievable_goal", "vague_goal")
_WAYS = {"202-webhook": "webhook", "202-stream": "stream", "200": "now"}
_LONGEST, _MOST = 3_600.0, 100  # seconds of a delay; any count


class DirectiveError(Exception):
    """A directive has an unknown word, or a word without its value."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The way one request is answered."""

    way: str = "webhook"
    delay: float = 0.0
    progress: int = 0
    error_type: str | None = None
    """The type of the error that the work fails with."""
    clarify: bool = False
    copies: int = 1
    auth: str | None = None
    status: int | None = None
    retry_after: str | None = None
    fault: str | None = None
    times: int | None = None
    """The number of attempts that get the status or the fault; None for all."""
    answer: str | None = None

    @classmethod
    def of(cls, options: Options, request: Any, *, decompose: bool = False) -> Behaviour:
        """Reads the directives in the strings of `request`; the options give the defaults. Raises DirectiveError."""
        behaviour = cls() if decompose else cls(way=options.way, delay=options.delay, progress=options.progress)
        for line in lines_in(request):
            words = line.replace("=", " ").split()
            if (words[:1] == ["decompose"]) == decompose:
                behaviour = _read(behaviour, words[1:] if decompose else words)
        return behaviour


def lines_in(value: Any) -> list[str]:
    """Returns the contents of the directives in all strings of a JSON value, in order."""
    return [found.strip() for text in _strings(value) for found in _LINE.findall(text)]


def without_lines(text: str) -> str:
    return _LINE.sub("", text).strip()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _strings(below)


def _read(behaviour: Behaviour, words: list[str]) -> Behaviour:
    left = list(words)
    while left:
        word = left.pop(0)
        if word in _WAYS:
            behaviour = replace(behaviour, way=_WAYS[word])
        elif word in _FAULTS:
            behaviour = replace(behaviour, fault=word)
        elif word in ("signed", "keyed"):
            behaviour = replace(behaviour, auth=word)
        elif word == "clarify":
            behaviour = replace(behaviour, clarify=True)
        elif word == "fail":
            behaviour = replace(behaviour, error_type=behaviour.error_type or "unexpected_error")
        elif word == "progress":
            counted = bool(left) and left[0].isdecimal() and left[0] not in _WAYS
            behaviour = replace(behaviour, progress=_count(left.pop(0)) if counted else 3)
        elif word in _VALUES and left:
            name, convert = _VALUES[word]
            behaviour = replace(behaviour, **{name: convert(left.pop(0))})
        else:
            raise DirectiveError(f"unknown, or without its value: {word}")
    return behaviour


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST:
        raise DirectiveError(f"a number of at most {_MOST} is needed")
    return int(text)


def _status(text: str) -> int:
    if not text.isdecimal() or not 200 <= int(text) < 600:
        raise DirectiveError("a status from 200 to 599 is needed")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise DirectiveError("a number of seconds is needed") from None
    if not 0 <= seconds <= _LONGEST:
        raise DirectiveError(f"0 to {_LONGEST:.0f} seconds are possible")
    return seconds


def _goal(text: str) -> str:
    if text not in _GOALS:
        raise DirectiveError(f"one of {', '.join(_GOALS)} is needed")
    return text


_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "delay": ("delay", _seconds),
    "late": ("delay", _seconds),
    "duplicate": ("copies", _count),
    "status": ("status", _status),
    "times": ("times", _count),
    "retry-after": ("retry_after", str),
    "error_type": ("error_type", str),
    "answer": ("answer", _goal),
}
