"""Well-behaved clients of the API. They repeat a message, with its id, until it is answered, resume streams, and record
everything in the history."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.e2e.sse import SseStream, open_stream
from tests.e2e.stack import bearer
from tests.faults.rig.history import History, Outcome
from tests.faults.rig.readings import Reading, Seen
from tests.plain_http import http_client
from tests.speed import limit

KNOWS_RESET = "?accept=reset-step"
SILENCE, CONNECTED_WITHIN = min(limit(15), 30.0), min(limit(5), 10.0)
"""Seconds without data after which a client gives up a connection, or an attempt to connect, and asks another API.

The API sends something every 10 s. They do not grow without end on a slow machine: no test fails if a client gives up,
and its patience with an API that is cut off would count as time that the system takes.
"""
_PAUSE = 0.2
"""Seconds between two attempts."""


class Refused(Exception):
    """Raised for an answer that no repetition will change."""


class Client:
    """A user, called `name`, of all API processes. The caller bounds every wait (asyncio.timeout)."""

    def __init__(self, name: str, http: httpx.AsyncClient, bases: Sequence[str], history: History) -> None:
        self.name = name
        self._http = http
        self._bases = bases
        self._history = history
        self._turn = random.Random(name).randrange(len(bases))

    def _path(self, path: str) -> str:
        """Returns the URL of that path at the next API process. A client whose request failed thus asks another one."""
        self._turn += 1
        return f"{self._bases[self._turn % len(self._bases)]}/api/chat{path}"

    async def open_session(self) -> str:
        """Creates a session and returns its id. The client chooses the id, so that a repeated request creates no second
        session."""
        session = uuid.uuid4().hex
        response = await self._until_answered("POST", "/sessions", "open", session, json={"id": session})
        if response.status_code not in (200, 201):
            raise Refused(response.text)
        return session

    async def ask(
        self, session: str, message_id: str, text: str, *, reading: Reading | None = None, **more: Any
    ) -> Reading:
        """Posts a message until it is answered, then reads its stream to the end. The caller may watch `reading`
        meanwhile. `more` are fields of the body, such as on_busy. Raises Refused."""
        body = {"message": text, "message_id": message_id, **more}
        reading = reading or Reading()
        while not reading.task:
            self._history.note(self.name, "post", message_id, "invoke", session=session, text=text)
            try:
                path = self._path(f"/sessions/{session}/stream{KNOWS_RESET}")
                async with open_stream(self._http, "POST", path, json=body) as stream:
                    if stream.status != 200:
                        await self._note_refusal(stream, message_id)
                        continue
                    self._history.note(self.name, "post", message_id, "ok", session=session, task=stream.task_id)
                    reading.accept(stream.task_id)
                    await reading.take(stream)
            except httpx.TransportError as error:
                if not reading.task:
                    self._history.note(self.name, "post", message_id, "unknown", why=repr(error))
                    await asyncio.sleep(_PAUSE)
        await self.follow(reading)
        return reading

    async def _note_refusal(self, stream: SseStream, message_id: str) -> None:
        """Records a refusal. The outcome of a 503 is unknown, because it may hide a commit whose answer was lost. With
        429 and other refusals nothing was written."""
        await stream.response.aread()
        outcome: Outcome = "unknown" if stream.status >= 500 else "fail"
        self._history.note(self.name, "post", message_id, outcome, status=stream.status)
        if stream.status not in (429, 503):
            raise Refused(stream.response.text)
        await asyncio.sleep(min(float(stream.response.headers.get("retry-after", 1)), 2) * random.uniform(0.5, 1))

    async def follow(self, reading: Reading) -> Seen:
        """Reads the rest of a task's stream, however often the connection breaks. Returns what was seen of the
        whole."""
        seen: Seen | None = None
        while not reading.whole and seen is None:
            try:
                path = self._path(f"/tasks/{reading.task}/stream{KNOWS_RESET}")
                async with open_stream(self._http, "GET", path, cursor=reading.cursor) as stream:
                    seen = await self._read_on(reading, stream)
            except httpx.TransportError:
                pass
            if not reading.whole and seen is None:
                await asyncio.sleep(_PAUSE)
        seen = seen or reading.seen
        counts = {"connections": reading.connections, "beginnings": reading.beginnings}
        self._history.note(self.name, "read", reading.task, "ok", **seen.as_json(), **counts)
        return seen

    async def _read_on(self, reading: Reading, stream: SseStream) -> Seen | None:
        """Reads one more connection. Returns the answer from the conversation if the stream no longer exists."""
        if stream.status == 200:
            await reading.take(stream)
        elif stream.status == 204:
            reading.whole = True
        elif stream.status == 410:
            code = await _code_of(stream)
            if code == "task_expired":
                return await self._find_in_conversation(reading.task)
            reading.restart()
        elif stream.status not in (429, 503):
            await stream.response.aread()
            raise Refused(f"{stream.status} {stream.response.text}")
        return None

    async def _find_in_conversation(self, task: str) -> Seen | None:
        """Returns the answer of an ended task from the conversation, or None while the task runs."""
        record = await self._http.get(self._path(f"/tasks/{task}"))
        if record.status_code != 200 or record.json()["finished_at"] is None:
            return None
        shown = (await self.conversation(record.json()["session_id"]))["messages"]
        rows = [row for row in shown if row["task_id"] == task and row["role"] == "assistant"]
        return Seen(task, "".join(row["content"] for row in rows), (record.json()["status"],))

    async def conversation(self, session: str) -> dict[str, Any]:
        """Returns a session with its newest 500 messages as rows. Raises Refused."""
        response = await self._until_answered("GET", f"/sessions/{session}?limit=500", "look", session)
        if response.status_code != 200:
            raise Refused(response.text)
        shown: dict[str, Any] = response.json()
        return shown

    async def cancel(self, task: str) -> dict[str, Any]:
        """Requests a cancel until that is answered. Returns the answer."""
        response = await self._until_answered("POST", f"/tasks/{task}/cancel", "cancel", task)
        answer: dict[str, Any] = response.json()
        return answer

    async def _until_answered(self, method: str, path: str, op: str, id: str, *, json: Any = None) -> httpx.Response:
        while True:
            self._history.note(self.name, op, id, "invoke")
            try:
                response = await self._http.request(method, self._path(path), json=json)
            except httpx.TransportError as error:
                self._history.note(self.name, op, id, "unknown", why=repr(error))
            else:
                if response.status_code not in (429, 503):
                    answered = {"answer": response.json()} if op == "cancel" else {}
                    outcome: Outcome = "ok" if response.is_success else "fail"
                    self._history.note(self.name, op, id, outcome, status=response.status_code, **answered)
                    return response
                self._history.note(self.name, op, id, "unknown", status=response.status_code)
            await asyncio.sleep(_PAUSE)


async def _code_of(stream: SseStream) -> str:
    await stream.response.aread()
    return str(stream.response.json()["code"])


@asynccontextmanager
async def open_client(name: str, bases: Sequence[str], history: History) -> AsyncIterator[Client]:
    """Opens a client for a user of the API processes at `bases`."""
    timeout = httpx.Timeout(SILENCE, connect=CONNECTED_WITHIN)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with http_client(headers=bearer(name), timeout=timeout, limits=limits) as http:
        yield Client(name, http, bases, history)
