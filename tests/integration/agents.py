"""Agents that the tests of the library use."""

from __future__ import annotations

from typing import Any

from backend.chat.protocol.agent_json import AgentGraph, parse_agent
from backend.chat.store.library import SavedAgent, save_agent
from backend.ids import TaskId, UserId
from backend.postgres import Connection


def agent_json(**changes: Any) -> dict[str, Any]:
    return {
        "id": "graph-1",
        "name": "Mail sorter",
        "description": "Sorts what comes in",
        "nodes": [{"id": "in", "block_id": "b1"}, {"id": "out", "input_default": {"text": "x"}}],
        "links": [{"id": "l1", "source_id": "in", "source_name": "a", "sink_id": "out", "sink_name": "b"}],
        **changes,
    }


def a_graph(**changes: Any) -> AgentGraph:
    return parse_agent(agent_json(**changes))


async def an_agent(c: Connection, user_id: str, *, task_id: TaskId | None = None, **changes: Any) -> SavedAgent:
    """Saves an agent, or its next version if the user has an agent with that graph id."""
    return await save_agent(c, UserId(user_id), a_graph(**changes), task_id=task_id)
