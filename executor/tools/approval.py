"""Rules that say which tool calls need the approval of the user (TOOL_APPROVAL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Self

from executor.tools.ask_user import ASK_USER
from executor.tools.tool import Tool

SERVER, DESTRUCTIVE = "server:", "@destructive"


class Decision(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """Pairs of a pattern and a decision. The first pattern that fits a tool decides; without one its calls run.

    A pattern is the name of a tool, `server:` and the name of an MCP server, both with `*`, or `@destructive`.
    """

    rules: Sequence[tuple[str, Decision]] = ()

    @classmethod
    def parse(cls, setting: str) -> Self:
        """Parses TOOL_APPROVAL, whose form `backend/setting_types.py` has checked."""
        pairs = (rule.strip().rpartition("=") for rule in setting.split(",") if rule.strip())
        return cls(tuple((pattern.strip(), Decision(decision.strip())) for pattern, _, decision in pairs))

    def decision_for(self, tool: Tool[Any]) -> Decision:
        if tool.name == ASK_USER:
            return Decision.ALLOW  # this tool asks the user by itself
        return next((decision for pattern, decision in self.rules if _fits(pattern, tool)), Decision.ALLOW)


def _fits(pattern: str, tool: Tool[Any]) -> bool:
    if pattern == DESTRUCTIVE:
        return tool.destructive
    if pattern.startswith(SERVER):
        return tool.server is not None and fnmatchcase(tool.server, pattern.removeprefix(SERVER))
    return fnmatchcase(tool.name, pattern)
