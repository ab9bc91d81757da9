"""Pictures, PDFs and sounds that tools answer with: kept as files of the conversation, and shown to models."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fakes.careless_mcp_server import TOOLS
from tests.fakes.running import bodies_of, fake_server
from tests.integration.mcp_bench import CARELESS, HERE, bench
from tests.integration.running_api import RunningApi, new_id, outputs_in, running_api
from tests.pictures import pdf, picture

FORMATS = ("openai", "anthropic", "responses")
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SHOT = {"type": "image", "mimeType": "image/png", "data": b64(picture(width=300, height=200))}
RESULTS: dict[str, Any] = {
    "shot": {"content": [{"type": "text", "text": "the page"}, SHOT]},
    "both": {"content": [SHOT], "structuredContent": {"content": [SHOT], "width": 300}},
    "paper": {
        "content": [
            {
                "type": "resource",
                "resource": {"uri": "file:///d.pdf", "mimeType": "application/pdf", "blob": b64(pdf("Hello"))},
            },
            {
                "type": "resource",
                "resource": {"uri": "file:///t.csv", "mimeType": "text/csv", "blob": b64("a,é".encode())},
            },
        ]
    },
    "sound": {"content": [{"type": "audio", "mimeType": "audio/wav", "data": b64(WAV)}]},
    "odd": {
        "content": [
            {"type": "image", "mimeType": "image/png", "data": "no base64!"},
            {"type": "image", "mimeType": "image/svg+xml", "data": b64(b"<svg xmlns='x'/>")},
            {"type": "image", "mimeType": "image/png", "data": b64(bytes(20_000))},
            *[SHOT] * 12,
        ]
    },
}
SHOWN = [{"name": name, "inputSchema": {"type": "object"}} for name in RESULTS]
SERVER = {**CARELESS, "env": {**HERE, "TOOLS": json.dumps([*TOOLS, *SHOWN]), "RESULTS": json.dumps(RESULTS)}}


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in FORMATS}


@pytest.fixture(scope="module")
async def api(
    urls: dict[str, str], postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningApi]:
    def entry(id: str, provider: str, server: str, **more: Any) -> dict[str, Any]:
        return {"id": id, "provider": provider, "model": id, "base_url": f"{urls[server]}/v1", "key": "k", **more}

    everything = ["image", "pdf", "audio"]
    models = [
        entry("openai", "openai-chat", "openai", accepts=everything, default=True),
        entry("anthropic", "anthropic", "anthropic", accepts=everything),
        entry("responses", "openai-responses", "responses", accepts=everything),
        entry("plain", "openai-chat", "openai", accepts=[]),
    ]
    settings = {"chat_models": json.dumps(models), "chat_provider": None}
    folder = tmp_path_factory.mktemp("files")
    async with bench(folder, {"cam": SERVER}) as there:
        await there.until(lambda: "cam_shot" in there.offered)
        async with running_api(
            postgres_dsn, redis_dsn, files_url=f"file://{folder}/kept", toolbox=lambda _: there.toolbox, **settings
        ) as api:
            yield api


async def called(api: RunningApi, url: str, model: str, *tools: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Has the model call the tools in one step. Returns the messages of its next request, and the session."""
    user, mark = api.as_user(), new_id()
    session = await api.new_session(user)
    calls = "\n".join(f"/tool cam_{tool} {{}}" for tool in tools)
    heard = await api.say(session, f"{calls}\n/then\n/say seen {mark}", user, model=model)
    assert heard.text.startswith(("seen", "You said")), heard.text
    body = (await bodies_of(url, mark))[-1]
    shown = (await api.http.get(f"/api/chat/sessions/{session}", headers=user)).json()
    for output in outputs_in(shown):
        for file in output.get("files", ()):
            assert (await api.http.get(file["url"], headers=user)).status_code == 200
            assert (await api.http.get(file["url"], headers=api.as_user())).status_code == 404
    return body.get("messages") or body["input"], shown


def types_of(content: Any) -> list[str]:
    return [block["type"] for block in content]


async def test_pictures_of_two_parallel_calls_are_in_a_message_behind_them_in_chat_completions(
    api: RunningApi, urls: dict[str, str]
) -> None:
    messages, _ = await called(api, urls["openai"], "openai", "shot", "both")
    roles = [message["role"] for message in messages if message["role"] != "system"]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert types_of(messages[-1]["content"]) == ["image_url", "image_url", "text"]
    assert messages[-1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    for message in messages[:-1]:
        assert SHOT["data"][:100] not in json.dumps(message)


async def test_a_picture_is_inside_its_result_for_anthropic_and_the_responses_api(
    api: RunningApi, urls: dict[str, str]
) -> None:
    messages, _ = await called(api, urls["anthropic"], "anthropic", "shot", "both")
    results = messages[-1]["content"]
    assert types_of(results) == ["tool_result", "tool_result"]
    for result in results:
        assert types_of(result["content"]) == ["text", "image"]
        assert "base64" not in result["content"][0]["text"]
    items, shown = await called(api, urls["responses"], "responses", "shot", "both")
    outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
    assert [types_of(output) for output in outputs] == [["input_text", "input_image"]] * 2
    first, second = outputs_in(shown)
    [kept] = first["files"]
    assert {"type": "image", "mime_type": "image/png", "file_id": kept["file_id"]} in first["outputs"]
    assert second["files"] == first["files"], "the same picture is kept once"


async def test_pdfs_and_sounds_go_to_models_that_take_them(api: RunningApi, urls: dict[str, str]) -> None:
    messages, shown = await called(api, urls["openai"], "openai", "paper", "sound")
    assert types_of(messages[-1]["content"]) == ["file", "input_audio", "text"]
    assert messages[-1]["content"][1]["input_audio"] == {"data": b64(WAV), "format": "wav"}
    assert outputs_in(shown)[0]["outputs"][1]["text"] == "a,é"
    for format in ("anthropic", "responses"):
        messages, _ = await called(api, urls[format], format, "sound")
        said = json.dumps(messages)
        assert "which the model cannot read" in said
        assert b64(WAV) not in said


async def test_a_model_that_takes_none_reads_their_names(api: RunningApi, urls: dict[str, str]) -> None:
    messages, _ = await called(api, urls["openai"], "plain", "shot")
    assert messages[-1]["role"] == "tool"
    assert "[file shot-2.png" in messages[-1]["content"]
    assert SHOT["data"][:100] not in messages[-1]["content"]


async def test_what_is_no_picture_is_left_out_and_a_result_has_eight_files_at_most(
    api: RunningApi, urls: dict[str, str]
) -> None:
    messages, shown = await called(api, urls["anthropic"], "anthropic", "odd")
    [result] = messages[-1]["content"]
    assert types_of(result["content"]) == ["text", "image"]
    [output] = outputs_in(shown)
    assert len(output["files"]) == 1, "they are the same picture"
    assert sum("file_id" in part for part in output["outputs"]) == 8
    assert len(json.dumps(output)) < 20_000
