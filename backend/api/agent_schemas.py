"""Response bodies of the library routes."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from backend.chat.models import Json
from backend.chat.store.library import AgentVersion, LibraryAgent, SavedAgent


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class AgentSummary(_Out):
    """An agent without its graph. `name`, `description` and `version` (a number) are those of its newest version."""

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
        summary = AgentSummary.of(saved.agent).model_dump()
        nodes, links = saved.graph["nodes"], saved.graph["links"]
        return cls(**summary, node_count=len(nodes), link_count=len(links), graph=saved.graph)


class VersionSummary(_Out):
    """A version without its graph. `task_id` names the task that saved it; that task may have been deleted."""

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
