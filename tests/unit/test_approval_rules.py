"""TOOL_APPROVAL: which rules are accepted, and which tool each fits."""

from __future__ import annotations

from typing import ClassVar

import mcp_types
import pytest
from pydantic import ValidationError

from backend.config import Settings
from executor.mcp.server_entry import StdioServer
from executor.mcp.tool import offered_tools
from executor.tools.approval import ApprovalRules, Decision
from executor.tools.ask_user import AskUser
from tests.unit.test_agent import BarrierTool


class Named(BarrierTool):
    name: ClassVar[str] = "drop_table"


def of_server(**hints: bool) -> object:
    """Returns a tool of the server `crm` with these annotations."""
    annotations = mcp_types.ToolAnnotations(**hints) if hints else None
    remote = mcp_types.Tool(name="find", input_schema={"type": "object"}, annotations=annotations)
    (tool,) = offered_tools([remote], StdioServer(name="crm", command="x"), None).tools.values()  # type: ignore[arg-type]
    return tool


@pytest.mark.parametrize(
    ("rules", "decision"),
    [
        ("", "allow"), ("drop_table=ask", "ask"), ("drop_*=deny", "deny"), ("*=ask", "ask"), ("DROP_*=ask", "allow"),
        ("drop_table=allow, *=deny", "allow"), (" *=ask , drop_table=allow ", "ask"), ("server:*=deny", "allow"),
        ("@destructive=ask", "allow"), ("find=ask", "allow"),
    ],
)  # fmt: skip
def test_the_first_rule_that_fits_an_own_tool_decides(rules: str, decision: str) -> None:
    assert ApprovalRules.parse(Settings(tool_approval=rules).tool_approval).decision_for(Named(1)) == decision


@pytest.mark.parametrize(
    ("hints", "destructive"),
    [
        ({}, True), ({"destructive_hint": True}, True), ({"destructive_hint": False}, False),
        ({"read_only_hint": True}, False), ({"idempotent_hint": True}, True),
    ],
)  # fmt: skip
def test_tools_of_servers_are_known_by_their_server_and_their_hints(hints: dict[str, bool], destructive: bool) -> None:
    tool = of_server(**hints)
    rules = {rule: ApprovalRules.parse(rule).decision_for(tool) for rule in ("@destructive=ask", "server:cr*=deny")}  # type: ignore[arg-type]
    assert rules["server:cr*=deny"] is Decision.DENY
    assert (rules["@destructive=ask"] is Decision.ASK) == destructive


def test_a_question_needs_no_approval() -> None:
    assert ApprovalRules.parse("*=ask").decision_for(AskUser()) is Decision.ALLOW


@pytest.mark.parametrize("wrong", ["drop_table", "drop_table=maybe", "=ask", "a b=ask", "@all=ask", "a=ask;b=ask"])
def test_a_wrong_rule_stops_the_process(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(tool_approval=wrong)
