"""The files of messages: upload, read, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from backend.api.deps import AFile, AKey, AppState, AsCaller
from backend.api.file_links import check_link, link_to
from backend.api.file_schemas import FileOut
from backend.api.file_storing import store_upload
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import Ok
from backend.api.state import ApiState, state_of
from backend.api.uploads import WITHIN, largest_upload, receive
from backend.chat.models import FilePart
from backend.chat.store.attachments import files
from backend.chat.store.attachments.files import StoredFile
from backend.config import Settings
from backend.errors import FileNotFound
from backend.files.kinds import Kind, kind_of
from backend.files.storage import ObjectGone
from backend.files.upload import MAX_NAME

SENT_WITHIN = 300.0
"""Seconds in which a client must read a file."""
_BODY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cache-control": "private, max-age=600",
    "accept-ranges": "bytes",
}


class UploadRoute(CallerRoute):
    """A route that takes a file of any allowed size. Storing it may take longer than other answers."""

    answer_timeout = WITHIN + 120

    def body_limit(self, settings: Settings) -> int:
        return largest_upload(settings)


class LinkedRoute(CallerRoute):
    """A route that accepts a signed link in place of the caller's token."""

    async def admit(self, request: Request, api: ApiState) -> None:
        if "signature" not in request.query_params:
            await super().admit(request, api)


router = APIRouter(tags=["files"], route_class=CallerRoute, responses=responses(401, 404, 413, 422, 503))
uploading = APIRouter(route_class=UploadRoute)
reading = APIRouter(route_class=LinkedRoute)


@uploading.post(
    "/files",
    status_code=201,
    responses=responses(400, 408, 415, 429),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": _BODY, "multipart/form-data": _FORM},
        }
    },
)
async def upload_file(
    request: Request,
    api: AppState,
    caller: AsCaller,
    key: AKey,
    filename: Annotated[str, Query(max_length=MAX_NAME, description="The name of the file, if no form gives it.")] = "",
) -> FileOut:
    """Stores a file for a message: the body itself, or the file of a form.

    Its type is told by its content. Pictures are written again, without their metadata, with sides of at most 2,000
    pixels. A file that no message uses is deleted after a day.
    """
    with api.uploads.one(caller.quota_key) as arriving:
        content_type = request.headers.get("content-type", "")
        upload = await receive(api.resources.settings, arriving.counted(request.stream()), content_type, filename)
        with closing(upload):
            return _shown(await store_upload(api, caller, upload, key))


@reading.head("/files/{file_id}", include_in_schema=False)
@reading.get("/files/{file_id}", response_class=Response, responses=responses(410, 416))
async def read_file(
    request: Request,
    api: AppState,
    file_id: AFile,
    expires: Annotated[int | None, Query(ge=0, le=2**53, description="The end of a signed link.")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="The signature of a link.")] = None,
    range: Annotated[str | None, Header(max_length=100, description="One range of bytes.")] = None,
) -> Response:
    """Returns the content of a file. Only pictures are shown in the browser; it saves all others.

    A signed link (`link` of a file) needs no token.
    """
    async with api.resources.database.connection() as c:
        if signature is None:
            [stored] = await files.get_files(c, state_of(request).identity.caller, [file_id])
        else:
            stored = await files.get_linked_file(c, file_id)
            check_link(stored.part, stored.link_key, expires or 0, signature)
    headers = _HEADERS | {"etag": f'"{stored.sha256}"', "content-disposition": _disposition(stored)}
    if signature is None:  # the next user of this browser has another token
        headers |= {"cache-control": "private, no-cache", "vary": "authorization, cookie"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return await _content(api, request.method, stored.part, headers, range)


@router.get("/files/{file_id}/metadata")
async def describe_file(api: AppState, caller: AsCaller, file_id: AFile) -> FileOut:
    """Returns what is known of a file, with a new link."""
    async with api.resources.database.connection() as c:
        [stored] = await files.get_files(c, caller, [file_id])
    return _shown(stored)


@router.delete("/files/{file_id}")
async def delete_file(api: AppState, caller: AsCaller, file_id: AFile) -> Ok:
    """Deletes a file. Messages keep its name, and models no longer read it."""
    async with api.resources.database.connection() as c:
        await files.delete_file(c, caller, file_id)
    return Ok()


def _shown(stored: StoredFile) -> FileOut:
    part = stored.part
    return FileOut(
        id=part.file_id,
        url=part.url,
        mediaType=part.media_type,
        filename=part.filename,
        size=part.size,
        sha256=stored.sha256,
        link=link_to(part, stored.link_key),
    )


async def _content(api: ApiState, method: str, part: FilePart, headers: dict[str, str], wanted: str | None) -> Response:
    media_type = "text/plain; charset=utf-8" if kind_of(part.media_type) is Kind.TEXT else part.media_type
    start, end = _range(wanted, part.size) if wanted is not None else (0, part.size)
    if start >= end:
        return Response(status_code=416, headers={"content-range": f"bytes */{part.size}", "cache-control": "no-store"})
    status = 206 if (start, end) != (0, part.size) else 200
    headers |= {"content-length": str(end - start)}
    if status == 206:
        headers |= {"content-range": f"bytes {start}-{end - 1}/{part.size}"}
    if method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    try:
        pieces = await api.resources.files.read(part.file_id, start, end)
    except ObjectGone:
        raise FileNotFound from None
    return _BoundedResponse(pieces, status, headers, media_type)


def _range(wanted: str, size: int) -> tuple[int, int]:
    """Returns the first byte of a range and the one after its last. What is no single range means the whole file."""
    unit, _, given = wanted.partition("=")
    first, dash, last = given.strip().partition("-")
    if (
        unit.strip() != "bytes"
        or not dash
        or not all(text == "" or (text.isascii() and text.isdigit()) for text in (first, last))
    ):
        return 0, size
    if first:
        return min(int(first), size), min(int(last) + 1, size) if last else size
    return (max(0, size - int(last)), size) if last else (0, size)


def _disposition(stored: StoredFile) -> str:
    checked = stored.path is None  # the file of a tool is as the tool wrote it
    how = "inline" if checked and kind_of(stored.part.media_type) is Kind.IMAGE else "attachment"
    return f"{how}; filename*=UTF-8''{quote(stored.part.filename, safe='')}"


class _BoundedResponse(StreamingResponse):
    """A response that a client must read within SENT_WITHIN. Afterwards the connection is closed."""

    def __init__(self, pieces: AsyncIterator[bytes], status: int, headers: dict[str, str], media_type: str) -> None:
        super().__init__(pieces, status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(SENT_WITHIN):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            raise ClientDisconnect from None


router.include_router(uploading)
router.include_router(reading)
