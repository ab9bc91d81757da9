"""Tests of the export of a conversation as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from backend.api.export import MAX_EXPORT_BYTES
from tests.integration.running_api import RunningApi, running_api


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def test_a_conversation_is_exported_as_markdown_for_people(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/stream 3", mine)
    await api.say(session, '/tool find_library_agent {"query": "mail"}', mine)
    await api.http.patch(f"/api/chat/sessions/{session}", json={"title": 'Grüße / "mail"'}, headers=mine)
    answer = await api.http.get(f"/api/chat/sessions/{session}/export", headers=mine)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    name = answer.headers["content-disposition"]
    assert name == "attachment; filename=\"Gre mail.md\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20mail.md"
    lines = answer.text.splitlines()
    assert lines[0] == '# Grüße / "mail"'
    assert [line for line in lines if line.startswith("## ")] == ["## You", "## Assistant"] * 2
    assert "/stream 3" in lines
    told = "No agent in your library fits that."
    assert "*Tool find_library_agent: done*" in lines
    assert [line for line in lines if told in line] == [f"The tool find_library_agent answered: {told}"]


async def test_the_json_of_an_export_has_the_messages_of_the_history(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/stream 3", mine)
    answer = await api.http.get(f"/api/chat/sessions/{session}/export", params={"format": "json"}, headers=mine)
    document = answer.json()
    assert (document["format"], document["version"]) == ("copilot-conversation", 1)
    assert document["session"]["id"] == session
    assert document["messages"] == (await api.session(session, mine, format="ui"))["messages"]


_FILL = """
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts)
SELECT session_id, $2 + n, task_id, 0, $2 + n, 'user',
  json_build_array(json_build_object('type', 'text', 'text', n || ' ' || repeat('x', $4)))
FROM messages, generate_series(1, $3::int) AS n WHERE session_id = $1 AND sequence = 1"""


async def _fill(dsn: str, session: str, *, after: int, texts: int, characters: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_FILL, session, after, texts, characters)
    finally:
        await connection.close()


async def test_an_export_holds_all_pages_in_order_up_to_its_limit(api: RunningApi, postgres_dsn: str) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/stream 3", mine)
    await _fill(postgres_dsn, session, after=100, texts=150, characters=20_000)  # three pages of 1 MiB
    path = f"/api/chat/sessions/{session}/export"
    answer = await api.http.get(path, headers=mine)
    numbers = [int(line.split()[0]) for line in answer.text.splitlines() if line.endswith("xxx")]
    assert numbers == list(range(1, 151))
    await _fill(postgres_dsn, session, after=1_000, texts=MAX_EXPORT_BYTES // 100_000, characters=100_000)
    refused = await api.http.get(path, headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (422, "conversation_too_large")
