"""Routes of blocks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.problems import not_found
from examples.agent_platform.routes.requests import key_of, object_of, platform_of, user_of


async def list_blocks(_: Request) -> Response:
    return JSONResponse([block.as_json() for block in BLOCKS.values()])


async def execute_block(request: Request) -> Response:
    """Runs one block without a graph."""
    user, key = user_of(request), key_of(request)
    block = BLOCKS.get(request.path_params["block_id"])
    if block is None:
        raise not_found("block")
    given = await object_of(request)
    return JSONResponse(await platform_of(request).calls.call(user, block, given, key))


ROUTES = [
    Route("/blocks", list_blocks),
    Route("/blocks/{block_id}/execute", execute_block, methods=["POST"]),
]
