"""Routes of schedules."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_platform.graph import problems_with_input
from examples.agent_platform.problems import invalid_input
from examples.agent_platform.routes.requests import body_of, graph_id_of, key_of, platform_of, user_of
from examples.agent_platform.schedules import NewSchedule


class Create(BaseModel):
    version: int = Field(ge=1, lt=2**31)
    name: str = Field(min_length=1, max_length=200)
    cron: str = Field(max_length=200)
    timezone: str = Field("UTC", max_length=64)
    node_input: dict[str, Any] = Field(default_factory=dict)


class Change(BaseModel):
    paused: bool


async def create_schedule(request: Request) -> Response:
    user, graph_id, key = user_of(request), graph_id_of(request), key_of(request)
    body = await body_of(request, Create)
    platform = platform_of(request)
    stored = await platform.graphs.get(user, graph_id, body.version)
    if problems := problems_with_input(stored.graph.input_schema, body.node_input):
        raise invalid_input(problems)
    new = NewSchedule(user, graph_id, body.version, body.name, body.cron, body.timezone, body.node_input, key)
    schedule = await platform.schedules.create(new, platform.now())
    platform.scheduler.wake()
    return JSONResponse(schedule.as_json(), 201)


async def list_schedules(request: Request) -> Response:
    schedules = await platform_of(request).schedules.of_user(user_of(request), request.query_params.get("graph_id"))
    return JSONResponse({"schedules": [schedule.as_json() for schedule in schedules]})


async def change_schedule(request: Request) -> Response:
    """Pauses a schedule, or has it go on."""
    user, body, platform = user_of(request), await body_of(request, Change), platform_of(request)
    schedule = await platform.schedules.pause(user, request.path_params["id"], body.paused, platform.now())
    platform.scheduler.wake()
    return JSONResponse(schedule.as_json())


async def delete_schedule(request: Request) -> Response:
    await platform_of(request).schedules.delete(user_of(request), request.path_params["id"])
    return Response(status_code=204)


ROUTES = [
    Route("/graphs/{graph_id:path}/schedules", create_schedule, methods=["POST"]),
    Route("/schedules", list_schedules),
    Route("/schedules/{id}", change_schedule, methods=["PATCH"]),
    Route("/schedules/{id}", delete_schedule, methods=["DELETE"]),
]
