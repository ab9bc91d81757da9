"""Published agents that users can have adapted for themselves: a folder of `creator/slug.json` files."""

from __future__ import annotations

from pathlib import Path

import orjson

from backend.chat.protocol.agent_json import AgentGraph, parse_agent
from backend.errors import ConfigError, InvalidAgent

MAX_TEMPLATES = 1_000


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

    def find(self, name: str) -> dict[str, object] | None:
        """Returns the template's JSON, or None. The name is only a key: it never opens a file."""
        graph = self._graphs.get(name.strip().strip("/"))
        return graph.document if graph is not None else None
