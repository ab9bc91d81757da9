"""What differs between two versions of an agent, in words."""

from __future__ import annotations

from typing import Any

import pytest

from backend.chat.protocol.agent_changes import changes_between
from backend.chat.protocol.agent_json import parse_agent

LINK = {"id": "l", "source_id": "a", "sink_id": "b"}
BEFORE: dict[str, Any] = {"name": "Sorter", "nodes": [{"id": "a"}, {"id": "b", "size": 1}], "links": [LINK]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"nodes": [*BEFORE["nodes"], {"id": "c"}]}, "1 node added"),
        ({"nodes": [{"id": "a"}, {"id": "b", "size": 2}]}, "1 node changed"),
        ({"nodes": [{"id": "c"}, {"id": "d"}], "links": []}, "2 nodes added, 2 nodes removed, 1 link removed"),
        ({"links": [{**LINK, "source_id": "b", "sink_id": "a"}]}, "1 link changed"),
        ({"name": "Other", "description": "sorts"}, "name changed, description changed"),
        ({"is_active": False}, "state changed"),
        ({"author": "me"}, "other properties changed"),
    ],
)  # fmt: skip
def test_changes_are_counted_and_named(changes: dict[str, Any], words: str) -> None:
    before, after = parse_agent({"id": "x", **BEFORE}), parse_agent({"id": "x", **BEFORE, **changes})
    assert changes_between(before.numbered(1), after.numbered(2)) == words
