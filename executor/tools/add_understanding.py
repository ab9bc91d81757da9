"""add_understanding: remembers what the user told about their business."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse, UnderstandingUpdated
from backend.chat.store.business_profile import merge_understanding
from executor.tools.context import ToolContext
from executor.tools.tool import Tool


class AddUnderstandingArgs(BaseModel):  # the model reads the docstring, as the description of the input
    """The facts to add. Each field is optional; a field that is not given changes nothing."""

    model_config = ConfigDict(extra="forbid", str_max_length=2_000, defer_build=True)

    user_name: str | None = Field(None, description="The user's name")
    job_title: str | None = Field(None, description="Their role")
    business_name: str | None = Field(None, description="The name of their business")
    industry: str | None = Field(None, description="The industry it is in")
    business_size: str | None = Field(None, description="How many people work there, such as 1-10 or 51-200")
    user_role: str | None = Field(None, description="Decision maker, implementer, end user, …")
    key_workflows: list[str] | None = Field(None, max_length=50, description="Work they do again and again")
    daily_activities: list[str] | None = Field(None, max_length=50, description="What a day is made of")
    pain_points: list[str] | None = Field(None, max_length=50, description="What hurts")
    bottlenecks: list[str] | None = Field(None, max_length=50, description="What holds them up")
    manual_tasks: list[str] | None = Field(None, max_length=50, description="What they still do by hand")
    automation_goals: list[str] | None = Field(None, max_length=50, description="What they would like to automate")
    current_software: list[str] | None = Field(None, max_length=50, description="What they work with")
    existing_automation: list[str] | None = Field(None, max_length=50, description="What is automated already")
    additional_notes: str | None = Field(None, description="Anything else worth remembering")


class AddUnderstanding(Tool[AddUnderstandingArgs]):
    name: ClassVar[str] = "add_understanding"
    description: ClassVar[str] = (
        "Remember what the user told about themselves and their business. Call it whenever they tell something that "
        "would help later; what is remembered already is merged with it."
    )
    input_type = AddUnderstandingArgs
    idempotent: ClassVar[bool] = True

    async def run(self, call: AddUnderstandingArgs, context: ToolContext) -> ToolResponse:
        new_facts = call.model_dump(exclude_none=True)
        if not new_facts:
            return ErrorResponse(message="Nothing was told that could be remembered.", error="nothing_told")
        async with context.database.connection() as c:
            known = await merge_understanding(c, context.owner, new_facts)
        return UnderstandingUpdated(
            message="I have remembered that.",
            session_id=context.session_id,
            updated_fields=sorted(new_facts),
            current_understanding=known,
        )
