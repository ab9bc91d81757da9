"""The storage of files: each test runs with a folder, and with a real server of S3's protocol."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.config import Settings
from backend.errors import Unavailable
from backend.files.storage import FileStorage, ObjectGone
from backend.ids import new_file_id
from tests.servers import rclone
from tests.servers.ports import free_port


@pytest.fixture(scope="module", params=["folder", "s3"])
async def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FileStorage]:
    folder = tmp_path_factory.mktemp("files")
    if request.param == "folder":
        yield FileStorage(Settings(files_url=f"file://{folder}"))
        return
    program = await asyncio.to_thread(rclone.find_or_install)
    if program is None:
        pytest.skip(rclone.HINT)
    async with rclone.s3_server(program, folder) as endpoint:
        yield s3(endpoint)


def s3(endpoint: str, secret: str = rclone.SECRET) -> FileStorage:
    url = f"s3://{rclone.BUCKET}/of/tests?endpoint={endpoint}&region=us-east-1"
    return FileStorage(Settings(files_url=url, files_access_key=rclone.KEY, files_secret_key=secret))


async def test_an_object_is_read_whole_and_in_part_and_deleted(storage: FileStorage) -> None:
    id, data = new_file_id(), bytes(range(256)) * 4_000
    await storage.put(id, io.BytesIO(data))
    assert await storage.get(id) == data
    for start, end in ((0, len(data)), (1, 2), (300_000, 900_000), (len(data) - 1, len(data))):
        assert b"".join([piece async for piece in await storage.read(id, start, end)]) == data[start:end]
    assert [age < 3_600 for found, age in await storage.page(None) if found == id] == [True]
    await storage.delete(id)
    await storage.delete(id)
    with pytest.raises(ObjectGone):
        await storage.get(id)
    assert id not in [found for found, _ in await storage.page(None)]


async def test_objects_are_listed_page_by_page(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.files.storage.LISTED", 2)
    stored = {new_file_id() for _ in range(5)}
    for id in stored:
        await storage.put(id, io.BytesIO(b"x"))
    found, after = set(), None
    while page := [id for id, _ in await storage.page(after)]:
        found |= set(page)
        after = max(page)
    assert found >= stored


async def test_an_upload_whose_source_fails_leaves_nothing(storage: FileStorage) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 500_000:
                raise OSError("the disk failed")
            return super().read(size)

    id = new_file_id()
    with pytest.raises(Unavailable):
        await storage.put(id, Broken(b"x" * 1_000_000))
    with pytest.raises(ObjectGone):
        await storage.get(id)


async def test_a_server_that_refuses_or_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await s3(f"http://127.0.0.1:{free_port()}").get(new_file_id())
    program = await asyncio.to_thread(rclone.find_or_install)
    if program is None:
        pytest.skip(rclone.HINT)
    async with rclone.s3_server(program, tmp_path) as endpoint:
        with pytest.raises(Unavailable):
            await s3(endpoint, "another-secret-0123456789").put(new_file_id(), io.BytesIO(b"x"))
