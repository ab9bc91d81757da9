"""Measures the search in a user's messages: `python -m bench.search [MESSAGES]`, 1,000,000 by default.

Makes a database of its own on the server of DATABASE_URL (or a private one), and drops it. A message has 30 words of a
vocabulary of 20,000, whose most common word is in two thirds of all messages. Each query asks for other words of its
kind. It also prints what an appended message costs with the mark for the search and without it, in turn.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import uvloop

from backend.chat.store import messages
from backend.chat.store.derived import search
from backend.embedded import embedded_servers
from backend.ids import UserId
from backend.migrating import migrate
from backend.postgres import Connection, Database
from bench.load import percentile
from tests.integration.rows import a_session, a_task, new_user, text_message
from tests.servers.postgres import empty_database

PER_SESSION = 100
VOCABULARY = 20_000
ROUNDS, APPENDS = 60, 2_000
_TEXT = "the words of a message " * 5
_MARK = (
    "unsearched_since = CASE WHEN user_id IS NOT NULL AND expires_at IS NULL THEN coalesce(unsearched_since, now()) END"
)

_SESSIONS = """
INSERT INTO sessions (id, user_id, title)
SELECT 'session-' || n, $1, 'Conversation ' || n FROM generate_series(1, $2) n"""
_TASKS = """
INSERT INTO tasks (id, session_id, user_id, quota_key, status, request)
SELECT 'task-' || n, 'session-' || n, $1, 'user:' || $1, 'completed', '{}' FROM generate_series(1, $2) n"""
_MESSAGES = f"""
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts, created_at)
SELECT 'session-' || s, n, 'task-' || s, n, 0, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
  json_build_array(json_build_object('type', 'text', 'text', (
    SELECT string_agg('w' || floor({VOCABULARY} * random() ^ 3)::int, ' ') FROM generate_series(1, 30) WHERE n > 0))),
  now() - make_interval(secs => 1e7 - {PER_SESSION} * s - n)
FROM generate_series($1::int, $2::int) s, generate_series(1, {PER_SESSION}) n"""
_ENTRIES = """
INSERT INTO search_entries (session_id, sequence, user_id, words, created_at)
SELECT m.session_id, m.sequence, s.user_id, (
    SELECT string_agg(quote_literal(left(encode(sha256(s.user_id::bytea), 'hex'), 8) || word) || ':' || place, ' ')
    FROM unnest(string_to_array(m.parts->0->>'text', ' ')) WITH ORDINALITY AS said (word, place)
  )::tsvector, m.created_at
FROM messages m JOIN sessions s ON s.id = m.session_id WHERE m.task_id LIKE 'task-%'"""
# one session in ten belongs to others, each of whom has one
_OTHERS = "UPDATE sessions SET user_id = 'other-' || id WHERE substr(id, 9)::int % 10 = 0"

QUERIES: dict[str, Callable[[], str]] = {
    "a rare word": lambda: f'"w{random.randrange(15_000, VOCABULARY)}"',
    "a word of one message in ten": lambda: f'"w{random.randrange(20, 40)}"',
    "the most common word": lambda: '"w0"',
    "two common words": lambda: f'"w0" "w{random.randrange(1, 9)}"',
    "a common and a rare word": lambda: f'"w0" "w{random.randrange(15_000, VOCABULARY)}"',
    "the beginning of many words": lambda: f"w{random.randrange(10, 99)}",
    "a word that is nowhere": lambda: f"nothing{random.randrange(1_000)}",
}


async def fill(dsn: str, user: UserId, count: int) -> None:
    sessions = count // PER_SESSION
    c = await asyncpg.connect(dsn)
    try:
        await c.execute(_SESSIONS, user, sessions, timeout=600)
        await c.execute(_TASKS, user, sessions, timeout=600)
        for first in range(1, sessions + 1, 500):
            await c.execute(_MESSAGES, first, min(first + 499, sessions), timeout=600)
        await c.execute(_OTHERS, timeout=600)
        await c.execute(_ENTRIES, timeout=3_600)
        await c.execute("VACUUM ANALYZE", timeout=3_600)
    finally:
        await c.close()


async def measure(database: Database, user: UserId, make: Callable[[], str]) -> tuple[list[float], float]:
    """Returns the seconds of each search, and how many results they had on average."""
    took, found = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        async with database.snapshot() as c:
            found.append(len(await search.find_messages(c, user, make(), limit=20, offset=0)))
        took.append(time.perf_counter() - began)
    return took, statistics.mean(found)


async def appending(c: Connection) -> list[float]:
    """Returns what a message takes with the mark and without it, as a ratio, in turn message by message."""
    marked = messages._APPEND
    assert _MARK in marked
    statements = [marked, marked.replace(f",\n      {_MARK}", "")]
    places = []
    for _ in statements:
        user = new_user()
        session = await a_session(c, user)
        places.append((session, (await a_task(c, session, user)).id))
    ratios = []
    for block in range(APPENDS // 100):
        took = [0.0, 0.0]
        for step in range(200):
            one = step % 2
            messages._APPEND = statements[one]
            began = time.perf_counter()
            await messages.append_messages(c, *places[one], 100 * block + step // 2, [text_message(_TEXT)])
            took[one] += time.perf_counter() - began
        ratios.append(took[0] / took[1])
    messages._APPEND = marked
    return sorted(ratios)


async def main(count: int) -> None:
    user = UserId("the-user")
    async with AsyncExitStack() as stack:
        server = os.environ.get("DATABASE_URL")
        if not server:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))
            server = (
                await stack.enter_async_context(embedded_servers(folder, postgres=True, redis=False))
            ).postgres_dsn
        dsn = await stack.enter_async_context(empty_database(server))
        await migrate(dsn)
        began = time.perf_counter()
        await fill(dsn, user, count)
        print(f"{count:,} messages, nine in ten of one user, stored in {time.perf_counter() - began:.0f} s", flush=True)
        database = await stack.enter_async_context(Database.open(dsn, size=4))
        for name, make in QUERIES.items():
            took, found = await measure(database, user, make)
            p50, p95 = 1000 * percentile(took, 50), 1000 * percentile(took, 95)
            print(f"{name:32} p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  {found:4.1f} results", flush=True)
        async with database.connection() as c:
            ratios = await appending(c)
        middle = statistics.median(ratios)
        print(f"a message appended: {middle:.3f} of one without the mark; {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
