"""I13: a client gets each chunk once, in order, and the stored text, whatever the pattern of its reconnects."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.e2e.chat_api import asked, history_of, open_session, text_in
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.owners import TooLate, kill_owner, postgres_connection
from tests.faults.scale import new_seed, scale
from tests.faults.tabs import Tab, without_torn
from tests.speed import limit

SEED = new_seed()
OF_ENDED, LIVE_STREAMS, KILLED_STREAMS = (
    scale(16, 400),
    scale(2, 13),
    scale(2, 13),
)  # the first example is a trivial one
PER_STREAM = scale(10, 25)
STEPS = [" ".join(f"{letter}{n}" for n in range(80)) for letter in "abc"]
TOOL = '\n/tool add_understanding {"user_name":"Ada"}\n/then\n'
QUESTION = TOOL.join(f"/say {step}" for step in STEPS)
CHUNKS = 260  # approximately, in a live stream of the answer
pytestmark = [
    pytest.mark.timeout(scale(120, 3600)),
    pytest.mark.parametrize("servers", ["redis"], indirect=True, scope="module"),
]


@pytest.fixture(scope="module")
async def pairs(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with two API processes and two executors."""
    print(f"FAULT_SEED={SEED}")
    folder = tmp_path_factory.mktemp("pairs")
    async with open_stack(servers, folder, apis=2, executors=2, MAX_OPEN_STREAMS="1000", MAX_CRASHES="20") as stack:
        yield stack
    record("I13", "exact over any reconnects: " + ", ".join(f"{n} {kind}" for kind, n in held.items()))


held: Counter[str] = Counter()
"""Counts of the cases that passed, by kind."""


@dataclass(frozen=True)
class Pattern:
    """The connections of a tab. The first opens when the stream has `late` chunks. `cuts` holds the API and the number
    of bytes of each, and `last` the API of the last one."""

    late: int
    resets: bool
    cuts: Sequence[tuple[int, int]]
    last: int


def patterns(*, latest: int) -> st.SearchStrategy[Pattern]:
    sizes = st.one_of(st.integers(0, 400), st.integers(0, 12_000))
    cuts = st.lists(st.tuples(st.integers(0, 1), sizes), max_size=10)
    return st.builds(Pattern, st.integers(0, latest), st.booleans(), cuts, st.integers(0, 1))


def sized(examples: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=examples, database=None, suppress_health_check=slow)


many = st.lists(patterns(latest=CHUNKS + 60), min_size=PER_STREAM, max_size=PER_STREAM)


@dataclass(frozen=True)
class Answer:
    """An answer that is streaming, and a leading tab that reads it from the first chunk on without a cut."""

    http: httpx.AsyncClient
    bases: Sequence[str]
    session: str
    task: str
    leader: Tab
    leading: asyncio.Task[int]

    async def live(self, pattern: Pattern) -> int:
        """Runs one tab through its pattern. Returns how many torn steps it was shown, that is steps that a crash cut
        off."""
        while len(self.leader.shown.chunks) < pattern.late and not self.leading.done():
            await asyncio.sleep(0.02)  # between two checks, bounded by the stream's end
        after_the_end = self.leading.done()
        tab = Tab(self.http, self.bases, self.task, resets=pattern.resets)
        for api, cut in pattern.cuts:
            status = await tab.connect(api, cut=cut)
            assert status == 200 or (status == 204 and tab.ended), status
            if tab.shown.done:
                break
        if not tab.shown.done:
            await tab.read_to_the_end(pattern.last)
        steps, torn = without_torn(tab.shown.steps, STEPS)
        assert steps == STEPS
        assert tab.ending == "completed"
        held["connections"] += tab.connections
        assert not torn or not (after_the_end or pattern.resets)
        return torn


@asynccontextmanager
async def answering(stack: Stack) -> AsyncIterator[Answer]:
    """Asks a question and yields its answer. Asserts at the end that the conversation holds the exact answer."""
    async with stack.client(new_user()) as http:
        session = await open_session(http)
        bases = [api.url for api in stack.apis]
        async with asked(http, session, QUESTION) as stream:
            task = stream.task_id
        leader = Tab(http, bases, task, resets=True)
        leading = asyncio.create_task(leader.connect())
        try:
            yield Answer(http, bases, session, task, leader, leading)
            assert await asyncio.wait_for(leading, limit(60)) == 200
        finally:
            leading.cancel()
        assert leader.shown.steps == STEPS
        assert text_in((await history_of(http, session))[-1]) == "".join(STEPS)


@pytest.fixture(scope="module")
async def ended(pairs: Stack) -> AsyncIterator[Answer]:
    """One answer that has ended."""
    async with answering(pairs) as answer:
        await asyncio.wait_for(asyncio.shield(answer.leading), limit(60))
        yield answer


@seed(SEED)
@sized(OF_ENDED)
@given(pattern=patterns(latest=0))
async def test_an_ended_stream_is_exact_over_any_reconnects(ended: Answer, pattern: Pattern) -> None:
    await asyncio.wait_for(ended.live(pattern), limit(60))
    held["patterns over an ended stream"] += 1


@seed(SEED)
@sized(LIVE_STREAMS)
@given(tabs=many)
async def test_a_live_stream_is_exact_over_any_reconnects(pairs: Stack, tabs: Sequence[Pattern]) -> None:
    async with answering(pairs) as answer, asyncio.timeout(limit(90)):
        torn = await asyncio.gather(*map(answer.live, tabs))
    assert not any(torn)
    held["over live ones"] += len(tabs)


@seed(SEED)
@sized(KILLED_STREAMS)
@given(tabs=many, kill_at=st.integers(3, CHUNKS - 110))
async def test_a_stream_whose_executor_was_killed_is_exact_over_any_reconnects(
    pairs: Stack, tabs: Sequence[Pattern], kill_at: int
) -> None:
    """A client that accepts `reset-step` sees nothing of the torn step. Another client sees the torn step end, and then
    the whole step."""

    async def strike() -> None:
        while len(answer.leader.shown.chunks) < kill_at:
            await asyncio.sleep(0.01)  # shorter than the time between two chunks
        try:
            assert await kill_owner(pairs, c, answer.task)
        except TooLate:
            held["of which had ended before the kill"] += len(tabs)
        else:
            await pairs.start_executor()

    async with postgres_connection(pairs.servers.postgres) as c, answering(pairs) as answer, asyncio.timeout(limit(90)):
        _, *torn = await asyncio.gather(strike(), *map(answer.live, tabs))
    assert max(torn) <= 1
    held["over ones whose executor was killed"] += len(tabs)
    held["of which saw a torn step end"] += sum(torn)
