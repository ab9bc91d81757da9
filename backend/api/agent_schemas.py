"""Response bodies of the library routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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
    """An agent with the graph of its newest version. `published_version` is the version that others see, or null."""

    node_count: int
    link_count: int
    published_version: int | None = None
    graph: dict[str, Json]

    @classmethod
    def of_saved(cls, saved: SavedAgent, published_version: int | None = None) -> AgentOut:
        summary = AgentSummary.of(saved.agent).model_dump()
        nodes, links = saved.graph["nodes"], saved.graph["links"]
        return cls(
            **summary,
            node_count=len(nodes),
            link_count=len(links),
            published_version=published_version,
            graph=saved.graph,
        )


class NewPublication(BaseModel):
    """What to publish."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int | None, Field(ge=1, le=2**31 - 1, description="Without it, the newest one.")] = None


class PublishedSummary(_Out):
    """A published agent without its graph. `mine`: the caller has published it."""

    id: str
    version: int
    name: str
    description: str
    published_at: datetime
    mine: bool


class PublishedList(_Out):
    agents: list[PublishedSummary]
    total: int


class PublishedOut(PublishedSummary):
    graph: dict[str, Json]


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
