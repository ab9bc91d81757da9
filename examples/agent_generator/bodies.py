"""The bodies of the requests. Unknown fields are ignored, because the client may be newer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Decompose(BaseModel):
    description: str = Field(max_length=100_000)
    user_instruction: str | None = Field(None, max_length=100_000)
    library_agents: list[Any] | None = None


class WorkRequest(BaseModel):
    """The fields that all work requests have. Without an idempotency key, the operation's id is the key."""

    operation_id: str = Field(min_length=1, max_length=200)
    task_id: str = Field(min_length=1, max_length=200)
    callback_url: str | None = Field(None, max_length=2_000, pattern=r"^https?://[^\s/]+/\S+$")


class Generate(WorkRequest):
    instructions: dict[str, Any] | list[Any] | str
    library_agents: list[Any] | None = None


class Update(WorkRequest):
    update_request: str = Field(max_length=100_000)
    current_agent_json: dict[str, Any]
    library_agents: list[Any] | None = None


class ModifyTemplate(WorkRequest):
    template_agent_json: dict[str, Any]
    modification_request: str = Field(max_length=100_000)
    context: str | None = Field(None, max_length=100_000)
