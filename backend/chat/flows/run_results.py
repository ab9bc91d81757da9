"""The tool responses of runs of agents, from the outcomes that the agent platform gives them."""

from __future__ import annotations

import json
import re
from typing import Any

from backend.chat.models import Json
from backend.chat.outcomes import Outcome, ToolWork
from backend.chat.protocol.agent_json import redacted
from backend.chat.protocol.tool_responses import AgentOutput, ErrorResponse, ToolResponse

MAX_WORDS = 500
"""Characters of the outputs in a message."""
_MAX_CHARS = 2_000
_CODE = re.compile(r"[a-z][a-z_]{2,40}")


def run_response(work: ToolWork, outcome: Outcome) -> ToolResponse:
    """Returns the response for a run that has ended. The outcome is data of unknown origin."""
    order = work.order if isinstance(work.order, dict) else {}
    result: dict[str, Any] = outcome.result if isinstance(outcome.result, dict) else {}
    name, run_id = str(order.get("agent_name") or "agent"), result.get("execution_id")
    if outcome.success:
        outputs = result.get("output") if "output" in result else outcome.result
        return AgentOutput(
            message=f"The agent “{name}” has run. {words_for(outputs)}",
            agent_id=order.get("agent_id"),
            agent_name=name,
            execution_id=run_id if isinstance(run_id, str) else None,
            status="completed",
            outputs=outputs,
        )
    code, details = result.get("error_type"), result.get("details")
    return ErrorResponse(
        message=f"The agent “{name}” has not run to its end: {(outcome.error or '').strip()[:_MAX_CHARS]}",
        error=code if isinstance(code, str) and _CODE.fullmatch(code) else "run_failed",
        details=redacted(
            {
                "agent_id": order.get("agent_id"),
                **({"execution_id": run_id} if isinstance(run_id, str) else {}),
                **({"details": details} if details is not None and len(json.dumps(details)) <= _MAX_CHARS else {}),
            }
        ),
    )


def words_for(outputs: Json) -> str:
    """Returns a sentence with the outputs, as far as they are short."""
    if not isinstance(outputs, dict) or not outputs:
        return "It has no output."
    words = "; ".join(f"{name}: {_value(values)}" for name, values in outputs.items())
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]} …"


def _value(values: Json) -> str:
    shown = values if isinstance(values, list) else [values]
    return ", ".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in shown)
