"""Published agents that users can have adapted for themselves: a folder of `creator/slug.json` files."""

from __future__ import annotations

from pathlib import Path

import orjson

from backend.chat.models import Json
from backend.chat.protocol.agent_json import AgentGraph, parse_agent
from backend.errors import ConfigError, InvalidAgent

MAX_TEMPLATES = 1_000
MAX_DESCRIPTION = 500
"""Characters of a description in a search."""


class Templates:
    """The templates below `folder`, or none if it is None. Reads all of them, and raises ConfigError for a bad one."""

    def __init__(self, folder: Path | None) -> None:
        self._graphs: dict[str, AgentGraph] = {}
        files = sorted(folder.glob("*/*.json"))[:MAX_TEMPLATES] if folder is not None else []
        for file in files:
            try:
                graph = parse_agent(orjson.loads(file.read_bytes()))
            except (OSError, orjson.JSONDecodeError, InvalidAgent):
                raise ConfigError(f"AGENT_TEMPLATES_DIR: {file}: not an agent in JSON") from None
            self._graphs[f"{file.parent.name}/{file.stem}"] = graph

    @property
    def names(self) -> list[str]:
        return list(self._graphs)

    def search(self, query: str, limit: int) -> list[dict[str, Json]]:
        """Returns up to `limit` templates that have words of the query in their name or description, best first."""
        words = [word.casefold() for word in query.split()]

        def points(name: str, graph: AgentGraph) -> int:
            title, text = f"{name} {graph.name}".casefold(), graph.description.casefold()
            return sum(2 if word in title else word in text for word in words)

        found = [(points(name, graph), name, graph) for name, graph in self._graphs.items()]
        best = sorted((one for one in found if one[0]), key=lambda one: (-one[0], one[1]))[:limit]
        return [
            {"id": name, "source": "template", "name": graph.name, "description": graph.description[:MAX_DESCRIPTION]}
            for _, name, graph in best
        ]

    def find(self, name: str) -> dict[str, object] | None:
        """Returns the template's JSON, or None. The name is only a key: it never opens a file."""
        graph = self._graphs.get(name.strip().strip("/"))
        return graph.document if graph is not None else None
