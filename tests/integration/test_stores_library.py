"""Tests of the library in Postgres: the versions, the owners and the search of agents."""

from __future__ import annotations

import asyncio

import pytest

from backend.chat.store import library
from backend.chat.store.library import SavedAgent
from backend.errors import AgentNotFound, InvalidUnicode
from backend.ids import TaskId, UserId, new_library_agent_id, new_task_id
from backend.postgres import Connection, Database, translated_errors
from tests.integration.agents import a_graph, agent_json, an_agent
from tests.integration.rows import new_user
from tests.integration.running_api import LIMIT

WAITING_SAVES = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%advisory%'"


def a_user() -> UserId:
    user = new_user().user_id
    assert user is not None
    return user


async def test_an_agent_is_read_as_it_was_saved(c: Connection) -> None:
    user, task = a_user(), new_task_id()
    saved = await library.save_agent(c, user, a_graph(more={"ü": [1, 2.5, None]}), task_id=task)
    agent = saved.agent
    assert (agent.graph_id, agent.name, agent.description, agent.version) == (
        "graph-1", "Mail sorter", "Sorts what comes in", 1,
    )  # fmt: skip
    assert saved.graph == {**agent_json(more={"ü": [1, 2.5, None]}), "version": 1, "is_active": True}
    assert list(saved.graph)[:2] == ["id", "version"]
    for id in (agent.id, agent.graph_id):
        assert await library.get_agent(c, user, id) == saved
        assert await library.agent_versions(c, user, id, limit=10, offset=0) == (
            [library.AgentVersion(1, task, agent.updated_at)], 1,
        )  # fmt: skip
    assert agent.library_link == f"/library/agents/{agent.id}"
    assert agent.page_link == "/build?flowID=graph-1"


async def test_a_link_to_the_builder_escapes_any_id(c: Connection) -> None:
    saved = await an_agent(c, a_user(), id="a b&c/d?é")
    assert saved.agent.page_link == "/build?flowID=a%20b%26c%2Fd%3F%C3%A9"


async def test_an_edit_is_a_new_version_and_keeps_the_old_one(c: Connection) -> None:
    user = a_user()
    first = await an_agent(c, user, version=40)
    second = await an_agent(c, user, name="Better", nodes=[], links=[], is_active=False, task_id=TaskId("t"))
    assert (second.agent.id, second.agent.version, second.agent.name) == (first.agent.id, 2, "Better")
    assert second.agent.created_at == first.agent.created_at
    assert second.agent.updated_at > first.agent.updated_at
    assert (second.graph["version"], second.graph["is_active"]) == (2, False)
    assert (await library.get_agent(c, user, first.agent.id)) == second
    for saved, task in ((first, None), (second, "t")):
        version, graph = await library.get_version(c, user, "graph-1", saved.agent.version)
        assert (version.version, version.task_id, version.created_at) == (
            saved.agent.version, task, saved.agent.updated_at,
        )  # fmt: skip
        assert graph == saved.graph
    with pytest.raises(AgentNotFound):
        await library.get_version(c, user, "graph-1", 3)


async def test_the_same_graph_id_is_another_agent_for_another_user(c: Connection) -> None:
    one, other = await an_agent(c, a_user()), await an_agent(c, a_user())
    assert one.agent.id != other.agent.id
    assert one.agent.version == other.agent.version == 1


async def test_concurrent_saves_make_one_version_each(database: Database) -> None:
    user = a_user()

    async def save(n: int) -> SavedAgent:
        async with database.connection() as c:
            return await an_agent(c, user, name=f"name {n}")

    saved = await asyncio.wait_for(asyncio.gather(*(save(n) for n in range(20))), LIMIT)
    assert sorted(one.agent.version for one in saved) == list(range(1, 21))
    assert len({one.agent.id for one in saved}) == 1
    async with database.connection() as c:
        newest = await library.get_agent(c, user, "graph-1")
        versions, total = await library.agent_versions(c, user, "graph-1", limit=100, offset=0)
        assert (newest.agent.version, total, [one.version for one in versions]) == (20, 20, list(range(20, 0, -1)))
        for one in saved:
            _, graph = await library.get_version(c, user, "graph-1", one.agent.version)
            assert graph["name"] == one.agent.name
        assert newest.graph["name"] == newest.agent.name
        times = [one.created_at for one in versions]
        assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_second_save_waits_for_the_transaction_of_the_first(database: Database, kept: bool) -> None:
    user = a_user()

    async def save_second() -> SavedAgent:
        async with database.connection() as c:
            return await an_agent(c, user, name="second")

    async with database.connection() as watcher, database.connection() as first:
        transaction = first.transaction()
        await transaction.start()
        await an_agent(first, user, name="first")
        second = asyncio.create_task(save_second())
        async with asyncio.timeout(LIMIT):
            while await watcher.fetchval(WAITING_SAVES) == 0:
                await asyncio.sleep(0.02)
        await (transaction.commit() if kept else transaction.rollback())
        saved = await asyncio.wait_for(second, LIMIT)
    assert saved.agent.version == (2 if kept else 1)


async def test_a_save_that_fails_inside_a_transaction_leaves_the_transaction_usable(database: Database) -> None:
    user = a_user()
    async with database.transaction() as c:
        await an_agent(c, user, name="kept")
        # the row of the agent is written before that of the version fails
        with pytest.raises(InvalidUnicode), translated_errors():
            await an_agent(c, user, name="lost", task_id=TaskId("a\0b"))
        assert (await library.get_agent(c, user, "graph-1")).agent.version == 1
        await an_agent(c, user, id="graph-2")
    async with database.connection() as c:
        found, total = await library.list_agents(c, user, limit=10, offset=0, query=None)
        assert (sorted(agent.graph_id for agent in found), total) == (["graph-1", "graph-2"], 2)
        assert (await library.agent_versions(c, user, "graph-1", limit=10, offset=0))[1] == 1


async def test_characters_that_postgres_cannot_store_are_replaced_in_an_agent(c: Connection) -> None:
    user = a_user()
    saved = await an_agent(c, user, name="a\0b", description="\ud800", more={"\0": "x\udfff😀"})
    assert (saved.agent.name, saved.agent.description) == ("a\ufffdb", "\ufffd")
    read = await library.get_agent(c, user, saved.agent.id)
    assert read == saved
    assert read.graph["more"] == {"\ufffd": "x\ufffd😀"}


async def test_an_agent_of_another_user_is_not_found(c: Connection) -> None:
    owner = a_user()
    saved = await an_agent(c, owner)
    for user in (a_user(), UserId("")):
        for id in (saved.agent.id, "graph-1", new_library_agent_id()):
            for call in (
                library.get_agent(c, user, id),
                library.agent_versions(c, user, id, limit=1, offset=0),
                library.get_version(c, user, id, 1),
                library.delete_agent(c, user, id),
            ):
                with pytest.raises(AgentNotFound):
                    await call
        assert await library.list_agents(c, user, limit=10, offset=0, query=None) == ([], 0)
        assert await library.find_agents(c, user, f"sorter {saved.agent.id} graph-1", 10) == []
    assert await library.get_agent(c, owner, saved.agent.id) == saved


async def test_a_library_id_takes_precedence_over_an_equal_graph_id(c: Connection) -> None:
    user = a_user()
    first = await an_agent(c, user)
    twin = await an_agent(c, user, id=first.agent.id, name="Twin")
    assert (await library.get_agent(c, user, first.agent.id)).agent == first.agent
    await library.delete_agent(c, user, first.agent.id)
    assert (await library.get_agent(c, user, first.agent.id)).agent == twin.agent


async def test_an_agent_is_deleted_with_its_versions_and_may_be_saved_as_a_new_one(c: Connection) -> None:
    user = a_user()
    saved, kept = await an_agent(c, user), await an_agent(c, user, id="kept")
    await an_agent(c, user)
    await library.delete_agent(c, user, "graph-1")
    with pytest.raises(AgentNotFound):
        await library.delete_agent(c, user, saved.agent.id)
    statement = "SELECT count(*) FROM agent_versions WHERE library_agent_id = $1"
    assert await c.fetchval(statement, saved.agent.id) == 0
    assert await library.get_agent(c, user, "kept") == kept
    again = await an_agent(c, user)
    assert again.agent.version == 1
    assert again.agent.id != saved.agent.id


async def test_agents_are_listed_in_pages_with_the_last_saved_first(c: Connection) -> None:
    user = a_user()
    made = [(await an_agent(c, user, id=f"g{n}")).agent for n in range(4)]
    made[1] = (await an_agent(c, user, id="g1")).agent
    page, total = await library.list_agents(c, user, limit=3, offset=0, query=None)
    assert (page, total) == ([made[1], made[3], made[2]], 4)
    assert await library.list_agents(c, user, limit=3, offset=3, query=None) == ([made[0]], 4)
    assert await library.list_agents(c, user, limit=3, offset=9, query=None) == ([], 4)
    versions, total = await library.agent_versions(c, user, "g1", limit=1, offset=1)
    assert ([one.version for one in versions], total) == ([1], 2)


@pytest.mark.parametrize("query", ["100%", "a_b", "c\\d", "CAFÉ"])
async def test_a_list_is_searched_literally_in_names_and_descriptions(c: Connection, query: str) -> None:
    user = a_user()
    texts = ["about 100% of it", "the a_b of it", "path c\\d", "at the café", "100 things", "axb", "cd"]
    for n, text in enumerate(texts):
        await an_agent(c, user, id=f"n{n}", name=text)
        await an_agent(c, user, id=f"d{n}", description=text)
    found, total = await library.list_agents(c, user, limit=10, offset=0, query=query)
    assert len(found) == total == 2
    assert all(query.lower() in f"{agent.name} {agent.description}".lower() for agent in found)


async def test_agents_are_found_by_words_best_match_first_and_by_ids_before_others(c: Connection) -> None:
    user = a_user()
    for id, name, description in (
        ("forecast-1", "Weather report", "Sends the forecast by MAIL"),
        ("sorter-1", "Mail sorter", "Sorts what comes in"),
        ("sums", "Adder", "Adds up_numbers 100%"),
    ):
        await an_agent(c, user, id=id, name=name, description=description)

    async def found(query: str, limit: int = 10) -> list[str]:
        return [agent.graph_id for agent in await library.find_agents(c, user, query, limit)]

    assert await found("mail") == ["sorter-1", "forecast-1"]
    assert await found("the WEATHER mail") == ["forecast-1", "sorter-1"]
    assert await found("mail", 1) == ["sorter-1"]
    assert await found("up_num") == await found("100%") == ["sums"]
    assert await found("sums mail report") == ["sums", "forecast-1", "sorter-1"]
    for agent in await library.find_agents(c, user, "adder", 10):
        assert await found(f" {agent.id} ") == ["sums"]
    for nothing in ("zebra", "%", "_x", "\\", " ", "\0", "\ud800", "\0 \udfff", "x" * 500, "zebra " * 200):
        expected = ["sums"] if nothing == "%" else []
        assert await found(nothing) == expected, nothing
    assert await found("ma\0il") == ["sorter-1", "forecast-1"]
