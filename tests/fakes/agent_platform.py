"""An agent platform in the process of the test, after docs/platform.md (2026-11-30). Runs end when the test says so.

It is as strict as the platform of examples/: it refuses requests without key, user, JSON and Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.serving import Exchange, Request, converse

KEY = "a-key-of-the-platform-0123456789"
ADD_BLOCK = {
    "id": "block-add",
    "name": "Add",
    "description": "Adds two numbers.",
    "categories": ["math"],
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
    "outputSchema": {"type": "object", "properties": {"result": {"type": "number"}}},
    "idempotent": True,
    "kind": "action",
}
MAIL_BLOCK = {
    **ADD_BLOCK,
    "id": "block-mail",
    "name": "Send Mail",
    "description": "Sends a mail.",
    "categories": ["communication"],
    "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    "idempotent": False,
}
INPUT_BLOCK = {**ADD_BLOCK, "id": "block-input", "name": "Add Input", "kind": "input"}


@dataclass
class FakeRun:
    id: str
    user: str
    graph_id: str
    version: int
    key: str
    body: dict[str, Any]
    status: str = "running"
    output: Any = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "execution_id": self.id,
            "graph_id": self.graph_id,
            "version": self.version,
            "status": self.status,
            "started_at": "2026-11-30T08:00:00Z",
            "ended_at": None if self.status == "running" else "2026-11-30T08:00:01Z",
            "nodes": [
                {"node_id": "n1", "name": "Add", "status": "completed", "outputs": {"result": [5]}},
                {"node_id": "n2", "name": "Output", "status": self.status, "outputs": {}},
            ],
            "output": self.output,
            "error": self.error,
            "operation_id": self.body.get("operation_id"),
        }


@dataclass
class FakePlatform:
    port: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=lambda: [ADD_BLOCK, MAIL_BLOCK, INPUT_BLOCK])
    graphs: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    runs: dict[str, FakeRun] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(list))
    """Answers that come next for `METHOD last-part-of-the-path`, each once. The status 0 breaks the connection off
    after the request was carried out."""
    ends_at_once: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return {"platform_url": f"http://127.0.0.1:{self.port}/api/v1", "platform_api_key": KEY}

    def asked(self, method: str, end: str) -> list[Request]:
        return [one for one in self.requests if one.method == method and urlsplit(one.path).path.endswith(end)]

    def run_of(self, operation_id: str) -> FakeRun:
        (found,) = [run for run in self.runs.values() if run.key == operation_id]
        return found

    async def answer(self, exchange: Exchange) -> None:
        request = exchange.request
        self.requests.append(request)
        path = urlsplit(request.path).path.removeprefix("/api/v1")
        planned = self.answers[f"{request.method} {path.rsplit('/', 1)[-1]}"]
        status, document = planned.pop(0) if planned else (None, None)
        if status:
            await exchange.answer(status, document)
            return
        answered = self._answer(request, path)
        if status == 0:
            await exchange.hang_up()
        if answered[0] == 204:
            await exchange.answer_text(204, "text/plain", "")
        else:
            await exchange.answer(*answered)

    def _answer(self, request: Request, path: str) -> tuple[int, Any]:
        if request.headers.get("x-api-key") != KEY:
            return _error(401, "unauthorized")
        if (request.method, path) == ("GET", "/blocks"):
            return 200, self.blocks
        user = request.headers.get("x-user-id", "")
        if not 0 < len(user) <= 200:
            return _error(400, "invalid_request")
        if request.body and request.headers.get("content-type") != "application/json":
            return _error(400, "invalid_request")
        key = request.headers.get("idempotency-key", "")
        routes = {
            r"DELETE /graphs/([^/]+)": lambda graph: self._forget(user, graph),
            r"DELETE /user": lambda: self._forget(user, None),
            r"GET /schedules": lambda: self._schedules(user, request),
            r"POST /blocks/([^/]+)/execute": lambda block: self._run_block(block, key, request.json()),
            r"PUT /graphs/([^/]+)/versions/(\d+)": lambda *of: self._put(user, *of, request.json()),
            r"POST /graphs/([^/]+)/execute/(\d+)": lambda *of: self._execute(user, *of, key, request.json()),
            r"GET /graphs/([^/]+)/executions": lambda graph: self._executions(user, graph, request),
            r"GET /graphs/([^/]+)/executions/([^/]+)/results": lambda *run: self._run(user, *run),
            r"POST /graphs/([^/]+)/executions/([^/]+)/cancel": lambda *run: self._cancel(user, *run),
            r"POST /graphs/([^/]+)/schedules": lambda graph: self._make_schedule(user, graph, key, request.json()),
            r"(PATCH|DELETE) /schedules/([^/]+)": lambda method, one: self._change(user, method, one, request),
        }
        for pattern, act in routes.items():
            if (found := re.fullmatch(pattern, f"{request.method} {path}")) is not None:
                done: tuple[int, Any] = act(*found.groups())
                return done
        return _error(404, "not_found")

    def _forget(self, user: str, graph: str | None) -> tuple[int, Any]:
        self.graphs = {of: one for of, one in self.graphs.items() if of[0] != user or graph not in (None, of[1])}
        self.runs = {id: run for id, run in self.runs.items() if run.user != user or graph not in (None, run.graph_id)}
        self.schedules = {
            name: one
            for name, one in self.schedules.items()
            if not name.startswith(f"{user} ") or graph not in (None, one["graph_id"])
        }
        return 204, None

    def _run_block(self, block_id: str, key: str, inputs: Any) -> tuple[int, Any]:
        if not key:
            return _error(400, "invalid_request")
        if block_id == "block-add":
            return 200, {"result": [inputs["a"] + inputs["b"]]}
        return (200, {"sent": [True]}) if block_id == "block-mail" else _error(404, "not_found")

    def _put(self, user: str, graph: str, version: str, document: Any) -> tuple[int, Any]:
        if self.graphs.setdefault((user, graph, version), document) != document:
            return _error(409, "conflict")
        schema = document.get("input_schema", {"type": "object", "properties": {}})
        return 200, {"id": graph, "version": int(version), "input_schema": schema, "output_schema": {}, "trigger": None}

    def _execute(self, user: str, graph: str, version: str, key: str, body: Any) -> tuple[int, Any]:
        if not key or (user, graph, version) not in self.graphs:
            return _error(404 if key else 400, "not_found")
        known = next((run for run in self.runs.values() if run.key == key), None)
        run = known or FakeRun(str(uuid.uuid4()), user, graph, int(version), key, body)
        assert run.body == body, "another body under the same key"
        self.runs[run.id] = run
        if self.ends_at_once:
            self.end(run)
        return 202, {"id": run.id}

    def end(self, run: FakeRun, status: str = "completed", error: str | None = None) -> dict[str, Any]:
        """Ends a run. Returns the outcome as the platform posts it."""
        run.status, run.error = status, error
        run.output = {"sum": [sum(run.body["node_input"].values())]} if status == "completed" else None
        result = {"execution_id": run.id, "status": status, "output": run.output}
        return {"success": status == "completed", "result": result, **({"error": error} if error else {})}

    def _executions(self, user: str, graph: str, request: Request) -> tuple[int, Any]:
        most = int(parse_qs(urlsplit(request.path).query).get("limit", ["20"])[0])
        mine = [run for run in self.runs.values() if (run.user, run.graph_id) == (user, graph)]
        listed = [{k: v for k, v in run.as_json().items() if k != "nodes"} for run in mine[: -most - 1 : -1]]
        return 200, {"executions": listed}

    def _run(self, user: str, graph: str, run_id: str) -> tuple[int, Any]:
        run = self.runs.get(run_id)
        mine = run is not None and (run.user, run.graph_id) == (user, graph)
        return (200, run.as_json()) if run is not None and mine else _error(404, "not_found")

    def _cancel(self, user: str, graph: str, run_id: str) -> tuple[int, Any]:
        status, found = self._run(user, graph, run_id)
        if status == 200 and found["status"] == "running":
            self.runs[run_id].status = "cancelled"
        return self._run(user, graph, run_id)

    def _make_schedule(self, user: str, graph: str, key: str, body: Any) -> tuple[int, Any]:
        if len(body["cron"].split()) != 5:
            return _error(400, "invalid_request", [{"field": "cron", "message": "five fields"}])
        made = {"id": f"s-{key}", "graph_id": graph, "paused": False, "next_run_at": "2026-12-01T08:00:00Z", **body}
        self.schedules.setdefault(f"{user} s-{key}", made)
        return 201, made

    def _schedules(self, user: str, request: Request) -> tuple[int, Any]:
        (graph,) = parse_qs(urlsplit(request.path).query).get("graph_id", [None])  # type: ignore[list-item]
        mine = [one for name, one in self.schedules.items() if name.startswith(f"{user} ")]
        return 200, {"schedules": [one for one in mine if graph in (None, one["graph_id"])]}

    def _change(self, user: str, method: str, schedule_id: str, request: Request) -> tuple[int, Any]:
        found = self.schedules.get(f"{user} {schedule_id}")
        if found is None:
            return _error(404, "not_found")
        if method == "DELETE":
            del self.schedules[f"{user} {schedule_id}"]
            return 204, None
        found["paused"] = request.json()["paused"]
        return 200, found


def _error(status: int, code: str, details: Any = None) -> tuple[int, Any]:
    return status, {"error": "It was refused.", "code": code, **({} if details is None else {"details": details})}


@asynccontextmanager
async def fake_platform() -> AsyncIterator[FakePlatform]:
    fake = FakePlatform()
    jobs: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        jobs.add(job)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await converse(fake.answer, reader, writer)
        finally:
            jobs.discard(job)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=8 * 1024 * 1024)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for job in list(jobs):
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
