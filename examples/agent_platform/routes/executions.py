"""Routes of executions."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_generator.deliveries import may_call_back
from examples.agent_platform.parts import Platform
from examples.agent_platform.problems import invalid_request
from examples.agent_platform.routes.requests import body_of, graph_id_of, key_of, platform_of, user_of, version_of
from examples.agent_platform.runs import NewRun, Operation, Run

MOST, USUAL = 100, 20


class Execute(BaseModel):
    node_input: dict[str, Any] = Field(default_factory=dict)
    operation_id: str | None = Field(None, min_length=1, max_length=200)
    task_id: str | None = Field(None, min_length=1, max_length=200)
    callback_url: str | None = Field(None, max_length=2_000, pattern=r"^https?://[^\s/]+/\S+$")


async def execute_graph(request: Request) -> Response:
    """Starts a run. The same key gets the same run."""
    user, graph_id, version, key = user_of(request), graph_id_of(request), version_of(request), key_of(request)
    body = await body_of(request, Execute)
    platform = platform_of(request)
    operation = _operation_of(platform, body)
    new = NewRun(user, graph_id, version, body.node_input, None, f"user {key}" if key else None, operation)
    run = await platform.runner.start(new)
    return JSONResponse({"id": run.id}, 202)


def _operation_of(platform: Platform, body: Execute) -> Operation | None:
    url = body.callback_url
    if url is not None and (body.operation_id is None or body.task_id is None):
        raise invalid_request("A callback_url needs operation_id and task_id.")
    if url is not None and not may_call_back(url, platform.callback_base):
        raise invalid_request("This callback URL is not allowed.")
    return None if body.operation_id is None else Operation(body.operation_id, body.task_id, url)


async def results(request: Request) -> Response:
    return await _whole(request, await _run_of(request))


async def cancel_execution(request: Request) -> Response:
    """Cancels a run. A run that has ended stays as it is."""
    run = await _run_of(request)
    return await _whole(request, await platform_of(request).runner.cancel(run))


async def list_executions(request: Request) -> Response:
    user, graph_id = user_of(request), graph_id_of(request)
    limit = request.query_params.get("limit", str(USUAL))
    if not (limit.isascii() and limit.isdecimal()) or not 1 <= int(limit[:9]) <= MOST:
        raise invalid_request(f"limit is a number from 1 to {MOST}.")
    runs = await platform_of(request).runs.newest(user, graph_id, int(limit))
    return JSONResponse({"executions": [run.as_json() for run in runs]})


async def _run_of(request: Request) -> Run:
    return await platform_of(request).runs.get(
        user_of(request), graph_id_of(request), request.path_params["execution_id"]
    )


async def _whole(request: Request, run: Run) -> Response:
    nodes = await platform_of(request).runner.nodes_of(run)
    return JSONResponse({**run.as_json(), "nodes": nodes})


ROUTES = [
    Route("/graphs/{graph_id:path}/execute/{version:int}", execute_graph, methods=["POST"]),
    Route("/graphs/{graph_id:path}/executions", list_executions),
    Route("/graphs/{graph_id:path}/executions/{execution_id}/results", results),
    Route("/graphs/{graph_id:path}/executions/{execution_id}/cancel", cancel_execution, methods=["POST"]),
]
