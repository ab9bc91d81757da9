"""Turns over a Redis Cluster of six nodes: failovers and resharding in mid-answer, an operation, a dead executor."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from backend.chat.keys import COMPLETIONS
from tests.e2e.agents import begin, create, open_agent_stack, outputs
from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session, read_with_cuts, text_in
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Servers, Stack, new_user
from tests.faults.moving_masters import check_turns_over
from tests.faults.scale import FULL, scale
from tests.servers.generator import generator_node
from tests.servers.redis import RedisNode
from tests.servers.redis_cluster import RedisCluster, redis_cluster
from tests.speed import limit

EVENTS = ("command", "death", "freeze", "resharding")
WORDS, DELAY = 100, 30


@pytest.fixture(scope="module")
async def cluster_of_six() -> AsyncIterator[RedisCluster]:
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with redis_cluster(Path(folder)) as cluster:
            yield cluster


@pytest.fixture(scope="module", params=["redis", "rabbitmq"] if FULL else ["redis"])
def servers_in_cluster(request: pytest.FixtureRequest, postgres_dsn: str, cluster_of_six: RedisCluster) -> Servers:
    rabbitmq = request.getfixturevalue("rabbitmq_dsn") if request.param == "rabbitmq" else None
    return Servers(postgres_dsn, cluster_of_six.dsn, rabbitmq)


@pytest.fixture(scope="module")
async def stack_over_cluster(
    servers_in_cluster: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("stack")
    async with (
        generator_node(folder, redis=servers_in_cluster.redis) as generator,
        open_agent_stack(servers_in_cluster, generator, folder) as stack,
    ):
        await stack.start_executor()
        yield stack


async def _freeze(master: RedisNode) -> None:
    master.pause()


async def _happen(cluster: RedisCluster, event: str, session: str) -> None:
    """Lets the event happen to the node that has the keys of a session."""
    key = f"chat:lock:{{{session}}}"
    match event:
        case "command":
            await cluster.fail_over(key)
        case "death":
            await cluster.promote_after(key, RedisNode.kill)
        case "freeze":
            await cluster.promote_after(key, _freeze)
        case "resharding":
            await cluster.move_slot(key, pause=0.3)


@pytest.mark.parametrize("event", EVENTS)
async def test_turns_go_on_when_the_keys_of_a_session_move(
    stack_over_cluster: Stack, cluster_of_six: RedisCluster, event: str
) -> None:
    for _ in range(scale(1, 20)):
        await check_turns_over(stack_over_cluster, partial(_happen, cluster_of_six, event))
        await cluster_of_six.heal()


async def test_an_operation_ends_by_the_stream_whose_slot_fails_over(
    stack_over_cluster: Stack, cluster_of_six: RedisCluster
) -> None:
    async with stack_over_cluster.client(new_user()) as http, asyncio.timeout(limit(60)):
        session, started = await begin(http, create("[generator: 202-stream delay=1]"))
        await cluster_of_six.fail_over(COMPLETIONS)
        async with followed(http, started["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        assert text_in((await history_of(http, session))[-1]) == text_of(stream.events)


async def test_another_executor_ends_the_turn_of_a_killed_one(stack_over_cluster: Stack) -> None:
    question = f'/stream 10 5\n/tool add_understanding {{"user_name":"Ada"}}\n/then\n/stream {WORDS} {DELAY}'
    async with stack_over_cluster.client(new_user()) as http, asyncio.timeout(limit(60)):
        session = await open_session(http)
        async with asked(http, session, question) as stream:
            await stream.until(30)
            owner = next(one for one in stack_over_cluster.executors if stream.task_id in one.log.read_text())
            owner.send(signal.SIGKILL)
            await owner.ended()
            await stream.rest()
        await stack_over_cluster.start_executor()
        whole = await read_with_cuts(http, stream.task_id, [1, 2, 3])
        assert ending_of(whole) == "completed"
        assert text_of(whole) == text_in((await history_of(http, session))[-1]) == counted(10) + counted(WORDS)
