"""Files in the requests to models: whole, as text, or as a line with the name."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fakes.running import bodies_of, fake_server
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.office_files import document, workbook
from tests.pictures import pdf, picture

FORMATS = ("openai", "anthropic", "responses")


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in FORMATS}


@pytest.fixture(scope="module")
async def api(
    urls: dict[str, str], postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningApi]:
    def entry(id: str, provider: str, model: str, server: str, **more: Any) -> dict[str, Any]:
        url = f"{urls[server]}/v1"
        return {"id": id, "provider": provider, "model": model, "base_url": url, "key": "k", **more}

    models = [
        entry("openai", "openai-chat", "gpt-6-sol", "openai", accepts=["image", "pdf"], default=True),
        entry("anthropic", "anthropic", "claude-sonnet-5-5", "anthropic"),
        entry("responses", "openai-responses", "gpt-6-sol", "responses", accepts=["image", "pdf"]),
        entry("plain", "openai-chat", "words-only", "openai"),
        entry("blind", "openai-chat", "blind", "openai", images=True),
        entry("pictures", "openai-chat", "pictures-only", "openai", accepts=["image", "pdf"]),
        entry("small", "openai-chat", "gpt-6-mini", "openai", context_tokens=8_000, max_output_tokens=1_000),
    ]
    settings = {"chat_models": json.dumps(models), "chat_provider": None}
    folder = f"file://{tmp_path_factory.mktemp('files')}"
    async with running_api(postgres_dsn, redis_dsn, files_url=folder, max_open_streams=50, **settings) as api:
        yield api


async def upload(api: RunningApi, user: dict[str, str], data: bytes, name: str) -> str:
    answer = await api.http.post("/api/chat/files", content=data, params={"filename": name}, headers=user)
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


async def last_body(url: str, mark: str) -> dict[str, Any]:
    return (await bodies_of(url, mark))[-1]


def users(body: dict[str, Any]) -> list[Any]:
    """Returns the contents of the user's messages of a request."""
    messages = body.get("messages") or body["input"]
    return [message["content"] for message in messages if message.get("role") == "user"]


def kinds(content: Any) -> list[str]:
    return [block["type"] for block in content] if isinstance(content, list) else ["text"]


async def test_each_format_gets_pictures_and_pdfs_whole_and_texts_as_text(
    api: RunningApi, urls: dict[str, str]
) -> None:
    user = api.as_user()
    data = picture("PNG", 5, 4)
    wanted = {
        "openai": ["image_url", "file", "text"],
        "anthropic": ["image", "document", "text", "text"],
        "responses": ["input_image", "input_file", "input_text"],
    }
    for format in FORMATS:
        session, mark = await api.new_session(user), new_id()
        given = ((data, "p.png"), (pdf("Hello page"), "d.pdf"), (b"a,b\n</file>\n1,2", "t.csv"))
        files = [await upload(api, user, content, name) for content, name in given]
        heard = await api.say(session, f"/say seen {mark}", user, file_ids=files, model=format)
        assert heard.text.startswith("seen")
        [content] = users(await last_body(urls[format], mark))
        assert kinds(content) == wanted[format]
        told = json.dumps(content)
        assert "a,b\\n(file>\\n1,2" in told
        assert "%PDF-" not in told
        assert base64.b64encode(pdf("Hello page")).decode() in told
        await api.say(session, f"/say again {mark}2", user)
        assert kinds(users(await last_body(urls[format], f"{mark}2"))[0]) == wanted[format]


async def test_a_model_that_takes_no_files_reads_names_and_the_text_of_pdfs(
    api: RunningApi, urls: dict[str, str]
) -> None:
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    given = ((picture(), "p.png"), (pdf("First words", "Second page"), "d.pdf"))
    files = [await upload(api, user, content, name) for content, name in given]
    await api.say(session, f"{mark} look", user, file_ids=files, model="plain")
    [content] = users(await last_body(urls["openai"], mark))
    assert "[file p.png, 1 kB]" in content
    assert '<file name="d.pdf"' in content
    assert "First words" in content
    assert "Second page" in content


@pytest.mark.parametrize("model", ["openai", "anthropic", "plain"])
async def test_every_model_reads_the_text_of_office_files(api: RunningApi, urls: dict[str, str], model: str) -> None:
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    given = ((document("First words"), "d.docx"), (workbook(), "w.xlsx"))
    files = [await upload(api, user, content, name) for content, name in given]
    await api.say(session, f"{mark} look", user, file_ids=files, model=model)
    content = json.dumps(users(await last_body(urls["anthropic" if model == "anthropic" else "openai"], mark)))
    assert "d.docx" in content
    assert "First words" in content
    assert "2026-01-31,42,2.5,True" in content


async def test_a_model_that_refuses_pictures_is_asked_again_without_them(api: RunningApi, urls: dict[str, str]) -> None:
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    heard = await api.say(
        session, f"/say fine {mark}", user, file_ids=[await upload(api, user, picture(), "p.png")], model="blind"
    )
    assert heard.text.startswith("fine")
    first, second = (users(body)[0] for body in await bodies_of(urls["openai"], mark))
    assert kinds(first) == ["image_url", "text"]
    assert "[file p.png, 1 kB, which the model cannot read]" in second
    await api.say(session, f"/say next {mark}x", user)
    assert len(await bodies_of(urls["openai"], f"{mark}x")) == 1


async def test_a_model_that_refuses_pdfs_still_sees_pictures_and_then_reads_the_text_of_pdfs(
    api: RunningApi, urls: dict[str, str]
) -> None:
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    given = ((picture(), "p.png"), (pdf("First words", "Second page"), "d.pdf"))
    files = [await upload(api, user, content, name) for content, name in given]
    await api.say(session, f"{mark} look", user, file_ids=files, model="pictures")
    first, second = (users(body)[0] for body in await bodies_of(urls["openai"], mark))
    assert kinds(first) == ["image_url", "file", "text"]
    assert kinds(second) == ["image_url", "text"]
    assert "d.pdf, 1 kB, which the model cannot read" in second[-1]["text"]
    await api.say(session, f"{mark}x again", user)
    [body] = await bodies_of(urls["openai"], f"{mark}x")
    shown, text = users(body)[0]
    assert shown["type"] == "image_url"
    assert "First words" in text["text"]


async def test_the_newest_files_are_sent_and_a_small_context_gets_lines_for_the_rest(
    api: RunningApi, urls: dict[str, str]
) -> None:
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    files = [await upload(api, user, picture(width=8 + n), f"p{n}.png") for n in range(4)]
    await api.say(session, f"{mark} look", user, file_ids=files, model="small")
    [content] = users(await last_body(urls["openai"], mark))
    assert kinds(content) == ["image_url", "image_url", "text"]
    assert "[file p0.png, 1 kB]" in content[-1]["text"]
    assert "p3.png" not in content[-1]["text"]


async def test_a_deleted_file_is_no_longer_sent(api: RunningApi, urls: dict[str, str]) -> None:
    user, mark = api.as_user(), new_id()
    session, file = await api.new_session(user), await upload(api, user, picture(), "p.png")
    await api.say(session, f"{mark} look", user, file_ids=[file])
    assert (await api.http.delete(f"/api/chat/files/{file}", headers=user)).status_code == 200
    await api.say(session, f"{mark}2 and now?", user)
    assert "[file p.png, 1 kB, deleted]" in users(await last_body(urls["openai"], f"{mark}2"))[0]


async def test_the_list_of_models_tells_what_each_takes(api: RunningApi) -> None:
    models = (await api.http.get("/api/chat/models", headers=api.as_user())).json()["models"]
    assert {model["id"]: (model["accepts"], model["images"]) for model in models} == {
        "openai": (["image", "pdf"], True),
        "anthropic": (["image", "pdf"], True),
        "responses": (["image", "pdf"], True),
        "plain": ([], False),
        "blind": (["image"], True),
        "pictures": (["image", "pdf"], True),
        "small": (["image"], True),
    }
