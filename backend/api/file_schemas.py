"""The bodies of the routes of files."""

from __future__ import annotations

from pydantic import Field

from backend.api.schema_base import Reply


class FileOut(Reply):
    """A file that messages may have. `url` is for messages, and to read the file with the caller's token."""

    id: str
    url: str
    mediaType: str = Field(description="Told by the content, whatever the request said.")  # noqa: N815 - as in the AI SDK
    filename: str
    size: int = Field(description="Bytes that are kept. A picture is written again, so it has others than were sent.")
    sha256: str
    link: str = Field(
        description="A signed address for `<img>`, which needs no token. It ends after ten minutes or more."
    )


class WorkspaceFileOut(Reply):
    """A file of a conversation. `url` and `link` are those of any file."""

    path: str
    mediaType: str  # noqa: N815 - as in the AI SDK
    size: int
    sha256: str
    url: str
    link: str
    written: bool = Field(description="False for a file of a message, which is deleted by its url.")


class WorkspaceOut(Reply):
    """The files of a conversation, in the order of their paths."""

    files: list[WorkspaceFileOut]
