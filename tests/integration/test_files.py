"""Files over HTTP: upload, read, delete, messages with files, and what a sweep leaves."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from backend.chat.flows.files.expire import delete_expired_files, delete_orphans
from backend.ids import FileId, new_file_id
from tests.integration.running_api import RunningApi, new_id, new_user, running_api
from tests.office_files import archive
from tests.pictures import data_url, pdf, picture, png_head, size_of

PATH = "/api/chat/files"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    limits = {"max_files": 30, "max_files_bytes": 3_000_000, "max_text_bytes": 5_000, "max_open_streams": 100}
    folder = f"file://{tmp_path_factory.mktemp('files')}"
    async with running_api(postgres_dsn, redis_dsn, files_url=folder, **limits) as api:
        yield api


async def post(
    api: RunningApi, data: bytes, user: Mapping[str, str], name: str = "p.png", **headers: str
) -> httpx.Response:
    return await api.http.post(PATH, content=data, params={"filename": name}, headers={**user, **headers})


async def upload(api: RunningApi, data: bytes, user: Mapping[str, str], name: str = "p.png") -> dict[str, Any]:
    answer = await post(api, data, user, name)
    assert answer.status_code == 201, answer.text
    stored: dict[str, Any] = answer.json()
    return stored


async def objects(api: RunningApi) -> set[FileId]:
    return {id for id, _ in await api.resources.files.page(None)}


def question(text: str, *files: dict[str, Any] | str, id: str | None = None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for file in files:
        url, kind = (file, "image/png") if isinstance(file, str) else (file["url"], file["mediaType"])
        parts.append({"type": "file", "mediaType": kind, "filename": "a.png", "url": url})
    return {"id": id or new_id(), "role": "user", "parts": [*parts, {"type": "text", "text": text}]}


async def ask(
    api: RunningApi, session: str, message: dict[str, Any], user: Mapping[str, str], **more: Any
) -> httpx.Response:
    answer, _ = await api.read("POST", "/api/chat", json={"id": session, "messages": [message], **more}, headers=user)
    return answer


async def questions(api: RunningApi, session: str, user: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    body = await api.session(session, user, format="ui")
    return [message["parts"] for message in body["messages"] if message["role"] == "user"]


async def test_a_picture_is_stored_without_its_metadata_and_with_its_sides_bounded(api: RunningApi) -> None:
    user = api.as_user()
    given = picture("JPEG", 3_000, 1_000, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0", comment=b"a secret place")
    stored = await upload(api, given + b"appended", user, "../holiday.png")
    assert stored["mediaType"] == "image/jpeg"
    assert stored["filename"] == "holiday.png"
    assert stored["url"] == f"{PATH}/{stored['id']}"
    read = await api.http.get(stored["url"], headers=user)
    assert len(read.content) == stored["size"]
    assert size_of(read.content) == (2_000, 667)
    assert b"Exif" not in read.content
    assert b"secret" not in read.content
    assert b"appended" not in read.content


async def test_a_file_is_read_whole_in_ranges_and_by_a_signed_link(api: RunningApi) -> None:
    user = api.as_user()
    text = "Grüße, welt\n" * 50
    stored = await upload(api, text.encode(), user, "notes.md")
    assert stored["mediaType"] == "text/markdown"
    whole = await api.http.get(stored["url"], headers=user)
    assert whole.text == text
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''notes.md"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await api.http.get(stored["url"], headers={**user, "range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, text.encode()[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{stored['size']}"
    tail = await api.http.get(stored["url"], headers={**user, "range": "bytes=-4"})
    assert tail.content == text.encode()[-4:]
    beyond = await api.http.get(stored["url"], headers={**user, "range": "bytes=99999-"})
    assert beyond.status_code == 416
    head = await api.http.head(stored["url"], headers=user)
    assert (head.headers["content-length"], head.content) == (str(stored["size"]), b"")
    same = await api.http.get(stored["url"], headers={**user, "if-none-match": whole.headers["etag"]})
    assert same.status_code == 304
    linked = await api.http.get(stored["link"])
    assert linked.text == text
    forged = await api.http.get(stored["link"][:-1] + ("0" if stored["link"][-1] != "0" else "1"))
    assert (forged.status_code, forged.json()["code"]) == (404, "file_not_found")
    ended = await api.http.get(stored["url"], params={"expires": 1, "signature": "0" * 64})
    assert ended.status_code == 404


async def test_a_text_in_another_encoding_is_told_how_to_be_saved(api: RunningApi) -> None:
    answer = await post(api, "Straße;Größe\n".encode("cp1252"), api.as_user(), "a.csv")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_file")
    assert "CSV UTF-8" in answer.json()["detail"]


async def test_a_form_may_carry_the_file(api: RunningApi) -> None:
    user = api.as_user()
    answer = await api.http.post(PATH, files={"file": ("a ü.gif", picture("GIF"), "text/html")}, headers=user)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["mediaType"], answer.json()["filename"]) == ("image/png", "a ü.gif")
    none = await api.http.post(PATH, files={"file": (None, b"x")}, headers=user)
    assert (none.status_code, none.json()["code"]) == (422, "validation_error")
    two = await api.http.post(PATH, files=[("a", ("a", b"x")), ("b", ("b", b"y"))], headers=user)
    assert (two.status_code, two.json()["code"]) == (422, "validation_error")


async def test_the_content_and_not_the_name_decides_what_is_taken(api: RunningApi) -> None:
    user = api.as_user()
    for data, name in (
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "a.png"),
        (b"<?xml version='1.0'?>", "a.svg"),
        (archive(a=b"a"), "a.docx"),
        (b"\x7fELF\0", "a.txt"),
        ("€".encode()[:2], "a.txt"),
    ):
        answer = await post(api, data, user, name)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_file"), name
    for data, name in ((picture()[:40], "a.png"), (b"%PDF-1.4 nothing", "a.pdf")):
        answer = await post(api, data, user, name)
        assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_file"), name
    page = await upload(api, b"<html><script>alert(1)</script></html>", user, "a.html")
    read = await api.http.get(page["url"], headers=user)
    assert read.headers["content-type"] == "text/plain; charset=utf-8"
    assert read.headers["content-disposition"].startswith("attachment")
    assert (await post(api, b"", user)).status_code == 422
    assert (await post(api, b"x" * 6_000, user, "a.txt")).json()["code"] == "file_too_large"


async def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(api: RunningApi) -> None:
    answer = await post(api, png_head(10_000, 4_001), api.as_user())
    assert (answer.status_code, answer.json()["code"]) == (413, "picture_too_large")


async def test_the_same_key_stores_one_object(api: RunningApi) -> None:
    user, key = api.as_user(), new_id()
    before = await objects(api)
    data = picture(colour="blue")
    first, second = await asyncio.gather(*(post(api, data, user, **{"idempotency-key": key}) for _ in range(2)))
    third = await post(api, data, user, **{"idempotency-key": key})
    assert first.json()["id"] == second.json()["id"] == third.json()["id"]
    assert len(await objects(api) - before) == 1
    other = await post(api, picture(colour="green"), user, **{"idempotency-key": key})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_user_has_room_for_so_many_files_and_bytes(api: RunningApi) -> None:
    user = api.as_user()
    answers = [await post(api, b"text", user, "a.txt") for _ in range(31)]
    assert [answer.status_code for answer in answers] == [201] * 30 + [429]
    assert answers[-1].json()["code"] == "too_many_files"
    id = answers[0].json()["id"]
    assert (await api.http.delete(f"{PATH}/{id}", headers=user)).json() == {"status": "ok"}
    assert (await api.http.get(f"{PATH}/{id}", headers=user)).status_code == 404
    assert (await post(api, b"text", user, "a.txt")).status_code == 201


async def test_files_of_others_do_not_exist(api: RunningApi) -> None:
    mine, other = api.as_user(), api.as_user()
    stored = await upload(api, picture(), mine)
    for path in (stored["url"], f"{stored['url']}/metadata"):
        assert (await api.http.get(path, headers=other)).json()["code"] == "file_not_found"
        assert (await api.http.get(path)).json()["code"] == "file_not_found"
    assert (await api.http.delete(stored["url"], headers=other)).status_code == 404
    used = await ask(api, new_id(), question("look", stored), other)
    assert (used.status_code, used.json()["code"]) == (404, "file_not_found")
    assert (await api.http.get(f"{stored['url']}/metadata", headers=mine)).json()["sha256"] == stored["sha256"]
    anonymous = await upload(api, picture(), {})
    assert (await api.http.get(anonymous["url"])).status_code == 200


async def test_what_no_row_names_and_what_nobody_uses_is_swept(api: RunningApi) -> None:
    user = api.as_user()
    resources = api.resources
    orphan = new_file_id()  # the process died after it had stored the object
    await resources.files.put(orphan, io.BytesIO(b"orphan"))
    kept, deleted, unused = [await upload(api, picture(), user) for _ in range(3)]
    session = new_id()
    assert (await ask(api, session, question("look", kept), user)).status_code == 200
    assert (await api.http.delete(deleted["url"], headers=user)).status_code == 200
    async with resources.database.connection() as c:
        await c.execute("UPDATE files SET expires_at = now() WHERE id = $1 AND expires_at IS NOT NULL", unused["id"])
        await c.execute("UPDATE files SET expires_at = now() WHERE id = $1 AND expires_at IS NOT NULL", kept["id"])
    while await delete_expired_files(resources, 500):
        pass
    await delete_orphans(resources, older_than=3_600)
    assert orphan in await objects(api)
    await delete_orphans(resources, older_than=-60)
    left = await objects(api)
    assert kept["id"] in left
    assert not {orphan, deleted["id"], unused["id"]} & left
    assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=user)).status_code == 204
    assert (await api.http.get(kept["url"], headers=user)).status_code == 404
    assert (await api.http.get(kept["link"])).status_code == 404
    await delete_expired_files(resources, 500)
    assert kept["id"] not in await objects(api)


async def test_a_message_shows_its_files_and_keeps_them_when_it_is_edited_and_answered_again(api: RunningApi) -> None:
    user, session = api.as_user(), new_id()
    stored = await upload(api, picture(), user, "cat.png")
    first = question("What is this?", stored)
    assert (await ask(api, session, first, user)).status_code == 200
    [[file, text]] = await questions(api, session, user)
    assert (file["type"], file["mediaType"], file["filename"], file["url"]) == (
        *("file", "image/png", "cat.png"),
        stored["url"],
    )
    assert text == {"type": "text", "text": "What is this?"}
    assert (await api.http.get(file["providerMetadata"]["copilot"]["link"])).status_code == 200
    [row, _] = (await api.session(session, user))["messages"]
    assert (row["content"], row["parts"][0]["file_id"]) == ("What is this?", stored["id"])
    again = await ask(api, session, first, user, trigger="regenerate-message")
    assert again.status_code == 200
    edited = await ask(api, session, question("And now?", id=first["id"]), user, messageId=first["id"])
    assert edited.status_code == 200
    [[file, text]] = await questions(api, session, user)
    assert (file["url"], text["text"]) == (stored["url"], "And now?")
    other = await ask(api, new_id(), question("Here too?", stored), user)
    assert (other.status_code, other.json()["code"]) == (409, "file_in_other_session")


async def test_data_urls_are_stored_once_and_the_next_request_is_small(api: RunningApi) -> None:
    user, session = api.as_user(), new_id()
    urls = [data_url(picture(width=200, height=200 + n), "image/png") for n in range(10)]
    message = question("Look", *urls)
    before = await objects(api)
    for _ in range(2):  # the client sends it again
        assert (await ask(api, session, message, user)).status_code == 200
    assert len(await objects(api) - before) == 10
    history = (await api.session(session, user, format="ui"))["messages"]
    assert [part["type"] for part in history[0]["parts"]] == ["file"] * 10 + ["text"]
    uploads = [await upload(api, picture(width=200, height=300 + n), user) for n in range(10)]
    body = {"id": session, "messages": [*history, question("And these?", *uploads)]}
    sent = httpx.Request("POST", "http://x", json=body).content
    assert len(sent) < 10_000
    answer, _ = await api.read("POST", "/api/chat", json=body, headers=user)
    assert answer.status_code == 200
    assert [len(parts) for parts in await questions(api, session, user)] == [11, 11]


async def test_a_message_may_be_only_a_file_and_other_urls_are_refused(api: RunningApi) -> None:
    user, session = api.as_user(), new_id()
    stored = await upload(api, pdf("Hello"), user, "a.pdf")
    assert (await ask(api, session, question("  ", stored), user)).status_code == 200
    [[file]] = await questions(api, session, user)
    assert file["mediaType"] == "application/pdf"
    for url, code in (
        ("https://example.com/a.png", "foreign_file_url"),
        ("http://169.254.169.254/latest", "foreign_file_url"),
        ("file:///etc/passwd", "foreign_file_url"),
        ("data:image/png;base64,%", "foreign_file_url"),
        (f"{PATH}/nothing", "file_not_found"),
        (data_url(b"\0\1\2", "image/png"), "unsupported_file"),
    ):
        refused = await ask(api, new_id(), question("x", url), user)
        assert refused.json()["code"] == code, url
    large = await ask(api, new_id(), question("x", data_url(b"x" * 5_300_000, "text/plain")), user)
    assert large.json()["code"] == "file_too_large"


async def test_files_go_to_the_user_who_gets_their_conversation(api: RunningApi) -> None:
    session, user = new_id(), new_user()
    stored = await upload(api, picture(), {})
    assert (await ask(api, session, question("look", stored), {})).status_code == 200
    given = await api.http.patch(f"/api/chat/sessions/{session}/assign-user", headers=api.as_user(user))
    assert given.status_code == 200, given.text
    assert (await api.http.get(stored["url"], headers=api.as_user(user))).status_code == 200
    assert (await api.http.get(stored["url"])).status_code == 404


async def test_files_are_named_by_their_ids_in_the_other_protocol(api: RunningApi) -> None:
    user = api.as_user()
    session, stored = await api.new_session(user), await upload(api, picture(), user)
    await api.say(session, "Look", user, file_ids=[stored["id"]])
    [[file, _]] = await questions(api, session, user)
    assert file["url"] == stored["url"]
