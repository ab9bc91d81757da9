"""The route of webhooks: other services start runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_platform.routes.requests import json_of, key_of, platform_of
from examples.agent_platform.runs import NewRun

PREFIX = "/webhooks/"
MAX_PAYLOAD = 262_144  # bytes


async def receive(request: Request) -> Response:
    """Starts a run. Its secret name is the proof. Members of the body that name inputs of the agent become those."""
    platform = platform_of(request)
    stored = await platform.graphs.get_by_webhook(request.path_params["webhook"])
    key = key_of(request) or key_of(request, "webhook-id")
    payload = await json_of(request, most=MAX_PAYLOAD, empty={})
    names = stored.graph.input_schema["properties"]
    node_input = {name: payload[name] for name in names if name in payload} if isinstance(payload, dict) else {}
    run = await platform.runner.start(
        NewRun(
            stored.user_id, stored.graph_id, stored.version, node_input, payload,
            f"webhook {stored.webhook} {key}" if key else None,
        )
    )  # fmt: skip
    return JSONResponse({"id": run.id}, 202)


ROUTES = [Route(PREFIX + "{webhook}", receive, methods=["POST"])]
