"""Files whose storage fails, and files that two requests use at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from backend.api.uploads import from_data_url
from backend.chat.flows.files.expire import delete_expired_files
from backend.chat.models import Caller, FilePart, NewMessage, PromptFile, Role, TextPart
from backend.chat.store.attachments import files
from backend.config import Settings
from backend.errors import Unavailable
from backend.files.upload import Upload
from backend.ids import FileId, SessionId
from executor.llm.model import Prompt
from executor.metrics import ExecutorMetrics
from executor.side_jobs.file_sweep import FileSweep
from executor.side_jobs.sweeper import Sweeper
from executor.turns.files import FileCache, PromptFiles
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.pictures import data_url, picture
from tests.speed import limit

PATH = "/api/chat/files"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    folder = f"file://{tmp_path_factory.mktemp('files')}"
    async with running_api(postgres_dsn, redis_dsn, files_url=folder, max_open_streams=100) as api:
        yield api


async def upload(api: RunningApi, data: bytes, user: Mapping[str, str], name: str = "p.png") -> dict[str, Any]:
    answer = await api.http.post(PATH, content=data, params={"filename": name}, headers=user)
    assert answer.status_code == 201, answer.text
    stored: dict[str, Any] = answer.json()
    return stored


async def objects(api: RunningApi) -> set[FileId]:
    return {id for id, _ in await api.resources.files.page(None)}


def question(text: str, *given: dict[str, Any] | str, id: str | None = None) -> dict[str, Any]:
    urls = [one if isinstance(one, str) else one["url"] for one in given]
    parts = [{"type": "file", "mediaType": "image/png", "filename": "a.png", "url": url} for url in urls]
    return {"id": id or new_id(), "role": "user", "parts": [*parts, {"type": "text", "text": text}]}


async def ask(api: RunningApi, session: str, message: dict[str, Any], user: Mapping[str, str]) -> httpx.Response:
    answer, _ = await api.read("POST", "/api/chat", json={"id": session, "messages": [message]}, headers=user)
    return answer


async def test_a_message_that_is_sent_again_with_another_file_is_refused(api: RunningApi) -> None:
    user, session, id = api.as_user(), new_id(), new_id()
    first, other = await upload(api, picture("PNG", 9, 9), user), await upload(api, picture("PNG", 90, 70), user)
    assert (await ask(api, session, question("look", first, id=id), user)).status_code == 200
    assert (await ask(api, session, question("look", first, id=id), user)).status_code == 200
    again = await ask(api, session, question("look", other, id=id), user)
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_file_that_is_deleted_while_a_message_waits_for_its_session_stays_deleted(api: RunningApi) -> None:
    user = api.as_user()
    stored = await upload(api, picture(), user)
    ids = [FileId(stored["id"])]
    async with api.resources.database.transaction() as c:
        caller = Caller(await c.fetchval("SELECT user_id FROM files WHERE id = $1", ids[0]), "unused")
        assert (await api.http.delete(stored["url"], headers=user)).status_code == 200
        assert not await files.attach_files(c, caller, SessionId(new_id()), ids)


async def test_a_file_that_a_message_takes_at_this_moment_is_not_swept(api: RunningApi) -> None:
    id = (await upload(api, picture(), api.as_user()))["id"]
    database = api.resources.database
    async with database.connection() as c:
        await c.execute("UPDATE files SET expires_at = now() WHERE id = $1", id)
    async with database.transaction() as c, database.connection() as other:
        await c.execute("SELECT 1 FROM files WHERE id = $1 FOR UPDATE", id)
        assert id not in await files.expired_files(other, 1_000)
    async with database.connection() as c:
        assert id in await files.expired_files(c, 1_000)


async def test_a_browser_keeps_no_file_for_its_next_user(api: RunningApi) -> None:
    user = api.as_user()
    stored = await upload(api, picture(), user)
    by_token, by_link = await api.http.get(stored["url"], headers=user), await api.http.get(stored["link"])
    assert by_token.headers["cache-control"] == "private, no-cache"
    assert by_link.headers["cache-control"] == "private, max-age=600"


async def test_data_urls_are_decoded_beside_the_event_loop(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def noted(settings: Settings, url: str, filename: str) -> Upload:
        threads.append(threading.current_thread())
        return from_data_url(settings, url, filename)

    monkeypatch.setattr("backend.api.file_storing.from_data_url", noted)
    sent = question("look", data_url(picture(), "image/png"))
    assert (await ask(api, new_id(), sent, api.as_user())).status_code == 200
    assert threads
    assert threading.main_thread() not in threads


async def test_a_storage_that_hangs_does_not_hold_up_the_sweeper(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = api.as_user()
    stored = await upload(api, picture(), user)
    await api.http.delete(stored["url"], headers=user)
    hangs, sweeps, metrics = asyncio.Event(), asyncio.Event(), ExecutorMetrics()

    async def delete(id: FileId) -> None:
        hangs.set()
        await asyncio.Event().wait()

    def count_sweep(outcome: str) -> None:
        if hangs.is_set():
            sweeps.set()

    monkeypatch.setattr(api.resources.files, "delete", delete)
    monkeypatch.setattr(metrics, "count_sweep", count_sweep)
    deletion = FileSweep(api.resources)
    sweeper = Sweeper(api.resources, metrics=metrics, files=deletion)
    jobs = [asyncio.ensure_future(work) for work in (deletion.run(), sweeper.run())]
    try:
        async with asyncio.timeout(limit(20)):
            await hangs.wait()
            await sweeps.wait()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)


async def test_one_object_that_cannot_be_deleted_holds_up_no_others(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, resources = api.as_user(), api.resources
    stored = [FileId((await upload(api, b"text", user, "a.txt"))["id"]) for _ in range(3)]
    for id in stored:
        await api.http.delete(f"{PATH}/{id}", headers=user)
    real = resources.files.delete

    async def delete(id: FileId) -> None:
        if id == stored[0]:
            raise Unavailable
        await real(id)

    monkeypatch.setattr(resources.files, "delete", delete)
    monkeypatch.setattr("backend.chat.flows.files.expire.AT_ONCE", 2)
    with pytest.raises(Unavailable):
        await delete_expired_files(resources, 500)
    assert not {stored[1], stored[2]} & await objects(api)


async def test_a_prompt_asks_a_storage_that_fails_once(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    user, session = api.as_user(), new_id()
    given = [await upload(api, picture(colour=colour), user) for colour in ("red", "green", "blue")]
    assert (await ask(api, session, question("look", *given), user)).status_code == 200
    asked: list[FileId] = []

    async def get(id: FileId) -> bytes:
        asked.append(id)
        raise Unavailable

    monkeypatch.setattr(api.resources.files, "get", get)
    parts = tuple(PromptFile(FilePart(FileId(one["id"]), "image/png", "p.png", one["size"]), 1) for one in given)
    reading = PromptFiles(api.resources, FileCache(), SessionId(session), "a user")
    async with reading.loaded(Prompt("", [NewMessage(Role.USER, parts)])) as loaded:
        messages = loaded.messages
    assert len(asked) == 1
    told = [part.text for message in messages for part in message.parts if isinstance(part, TextPart)]
    assert len(told) == 3
    assert all("could not be read" in text for text in told)
