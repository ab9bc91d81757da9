"""The base classes of bodies, and fields that several of them have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from backend.chat.models import Json
from backend.ids import SESSION_ID_PATTERN

_PRINTABLE = r"^[\x20-\x7e]{1,255}$"
SessionIdField = Annotated[str, StringConstraints(pattern=SESSION_ID_PATTERN)]
MessageIdField = Annotated[str, StringConstraints(pattern=_PRINTABLE)]
OF_AUTOGPT = "A field of AutoGPT's page. It is checked, and has no effect."


class Body(BaseModel):
    """A request body that is validated strictly and has no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class BodyWithNulls(Body):
    """A body that may have any further field whose value is null: some clients send all fields that they do not use."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, document: Json) -> Json:
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None or name in cls.model_fields}


class Reply(BaseModel):
    """The body of a response."""

    model_config = ConfigDict(frozen=True)
