"""The bodies of answers about the library."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from backend.chat.library import AgentVersion, LibraryAgent, SavedAgent
from backend.chat.models import Json


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class AgentSummary(_Out):
    """An agent as its newest version names it. `version` is the number of that one."""

    id: str
    graph_id: str
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, agent: LibraryAgent) -> AgentSummary:
        return cls.model_validate(agent)


class AgentList(_Out):
    agents: list[AgentSummary]
    total: int


class AgentOut(AgentSummary):
    """An agent with the graph of its newest version."""

    node_count: int
    link_count: int
    graph: dict[str, Json]

    @classmethod
    def of_saved(cls, saved: SavedAgent) -> AgentOut:
        known = AgentSummary.of(saved.agent).model_dump()
        return cls(
            **known, node_count=len(saved.graph["nodes"]), link_count=len(saved.graph["links"]), graph=saved.graph
        )


class VersionSummary(_Out):
    """`task_id` is what made it; the task may be gone."""

    version: int
    task_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, version: AgentVersion) -> VersionSummary:
        return cls.model_validate(version)


class VersionList(_Out):
    versions: list[VersionSummary]
    total: int


class VersionOut(VersionSummary):
    graph: dict[str, Json]
