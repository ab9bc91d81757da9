"""The bodies of requests about whole conversations: folders, feedback, share links, imports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.api.export import FORMAT, VERSION
from backend.api.importing import MAX_MESSAGES
from backend.api.schema_base import Body, Reply
from backend.chat.models import Json
from backend.chat.store.conversations.feedback import MAX_COMMENT, Feedback
from backend.chat.store.conversations.folders import Folder
from backend.chat.store.conversations.shares import Share

MAX_FOLDER_NAME = 100

FolderName: TypeAlias = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=MAX_FOLDER_NAME)],
    Field(json_schema_extra={"pattern": r"\S"}, description="Spaces around it do not count."),
]


class FolderIn(Body):
    """The name of a folder."""

    name: FolderName


class FolderOut(Reply):
    id: str
    name: str
    created_at: datetime

    @classmethod
    def of(cls, folder: Folder) -> FolderOut:
        return cls(id=folder.id, name=folder.name, created_at=folder.created_at)


class FolderList(Reply):
    folders: list[FolderOut]


class FeedbackIn(Body):
    """What the caller thinks of an answer."""

    rating: Literal["up", "down"]
    comment: Annotated[
        Annotated[str, StringConstraints(max_length=MAX_COMMENT)] | None,
        Field(description="A text for the operator. It replaces an earlier one; without it there is none."),
    ] = None


class FeedbackOut(Reply):
    message_id: str
    rating: Literal["up", "down"]
    comment: str | None
    updated_at: datetime

    @classmethod
    def of(cls, message_id: str, feedback: Feedback) -> FeedbackOut:
        return cls(
            message_id=message_id, rating=feedback.rating, comment=feedback.comment, updated_at=feedback.updated_at
        )


class ShareOut(Reply):
    path: str = Field(description="The path of the page that shows the copy, with the secret of the link.")
    created_at: datetime = Field(description="When the copy was made. It has no later messages.")

    @classmethod
    def of(cls, share: Share) -> ShareOut:
        return cls(path=f"/s/{share.token}", created_at=share.created_at)


class SharingOut(Reply):
    enabled: bool = Field(description="False if the operator allows no share links (SHARE_LINKS).")
    share: ShareOut | None = Field(description="Null if this session has no link.")


class SharedPiece(Reply):
    type: Literal["text", "source"]
    text: str = Field(description="Markdown, or the title of the source.")
    url: str | None = Field(None, description="The address of a source.")


class SharedMessage(Reply):
    role: Literal["user", "assistant"]
    parts: list[SharedPiece]


class SharedOut(Reply):
    title: str | None
    created_at: datetime
    messages: list[SharedMessage]


class ConversationIn(BaseModel):
    """A conversation that `GET /sessions/{id}/export?format=json` returned. Unknown members are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format: Literal[FORMAT]  # type: ignore[valid-type]  # mypy takes only literals
    version: Literal[VERSION]  # type: ignore[valid-type]
    session: Annotated[dict[str, Json], Field(description="Its `title`, `metadata` and `instructions` are kept.")] = {}
    messages: Annotated[
        list[dict[str, Json]], Field(max_length=MAX_MESSAGES, description="UIMessages: the current branch, in order.")
    ]
    tree: Annotated[
        list[dict[str, Json]] | None,
        Field(
            max_length=MAX_MESSAGES,
            description="All messages, the oldest first, if there are several branches: `name`, `after` (the name of "
            "the one before, or null), and `message`: the index in `messages`, or a UIMessage of another branch.",
        ),
    ] = None


class ImportedOut(Reply):
    id: str
    title: str | None
    created_at: datetime
    messages: int = Field(description="The number of messages of the conversation, on all branches.")
