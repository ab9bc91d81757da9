"""Findings of `doctor`: what was checked, how it is, and what to do. No finding has a secret or a user's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from backend.chat.models import Json


class CheckState(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and an operator should know it."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `advice` says what to do about a warning or an error."""

    check: str
    state: CheckState
    message: str
    advice: str | None = None

    def as_json(self) -> Json:
        return {"check": self.check, "state": self.state.value, "message": self.message, "advice": self.advice}

    def as_text(self) -> str:
        line = f"{self.state.value:<8} {self.check:<11} {self.message}"
        return line if self.advice is None else f"{line}\n{'':<20} → {self.advice}"


def ok(check: str, message: str) -> Finding:
    return Finding(check, CheckState.OK, message)


def warning(check: str, message: str, advice: str) -> Finding:
    return Finding(check, CheckState.WARNING, message, advice)


def error(check: str, message: str, advice: str) -> Finding:
    return Finding(check, CheckState.ERROR, message, advice)


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 1 if a finding is an error, otherwise 0."""
    return int(any(finding.state is CheckState.ERROR for finding in findings))
