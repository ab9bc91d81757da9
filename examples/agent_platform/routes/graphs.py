"""Routes of graphs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_platform.parts import Platform
from examples.agent_platform.problems import Problem
from examples.agent_platform.routes.requests import graph_id_of, object_of, platform_of, user_of, version_of


async def put_graph(request: Request) -> Response:
    """Stores a version of a graph that can run."""
    user, graph_id, version = user_of(request), graph_id_of(request), version_of(request)
    document = await object_of(request)
    stored = await platform_of(request).graphs.put(user, graph_id, version, document)
    return JSONResponse(stored.as_json())


async def validate_graph(request: Request) -> Response:
    document = await object_of(request)
    try:
        graph = platform_of(request).graphs.parse(document)
    except Problem as problem:
        return JSONResponse(
            {"valid": False, "errors": problem.details, "input_schema": None, "output_schema": None, "trigger": None}
        )
    return JSONResponse(
        {
            "valid": True,
            "errors": [],
            "input_schema": graph.input_schema,
            "output_schema": graph.output_schema,
            "trigger": graph.trigger,
        }
    )


async def delete_graph(request: Request) -> Response:
    """Deletes all versions of a graph with its schedules and runs. Runs under way are cancelled."""
    await _forget(platform_of(request), user_of(request), graph_id_of(request))
    return Response(status_code=204)


async def delete_user(request: Request) -> Response:
    """Deletes everything of a user."""
    await _forget(platform_of(request), user_of(request), None)
    return Response(status_code=204)


async def _forget(platform: Platform, user_id: str, graph_id: str | None) -> None:
    await platform.graphs.forget(user_id, graph_id)  # first: without a graph and a schedule, no run begins
    await platform.runner.forget(user_id, graph_id)


ROUTES = [
    Route("/user", delete_user, methods=["DELETE"]),
    Route("/graphs/validate", validate_graph, methods=["POST"]),
    Route("/graphs/{graph_id:path}/versions/{version:int}", put_graph, methods=["PUT"]),
    Route("/graphs/{graph_id:path}", delete_graph, methods=["DELETE"]),
]
