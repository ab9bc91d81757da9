"""The alerts of `deploy/prometheus`, for tests."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import yaml

from tests import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "alerts.yml"
_MINUTES = re.compile(r"\b(\d+)m\b")


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """Returns every rule by the name of its alert."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def metrics_in(expression: str) -> set[str]:
    """Returns the names of the metrics in an expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring) \([^)]*\)", "", bare)
    words = {"and", "or", "unless", "by", "le"}
    return {name for name in re.findall(r"\b[a-z][a-z0-9_]*\b(?!\s*\()", bare) if name not in words}


def shortened(text: str, seconds: float) -> str:
    """Returns rules in which a minute lasts `seconds` seconds."""
    return _MINUTES.sub(lambda minutes: f"{round(int(minutes[1]) * seconds * 1000)}ms", text)
