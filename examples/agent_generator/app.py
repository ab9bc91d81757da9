"""The HTTP server of the generator: the service side of CoPilot's generator protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response

from examples.agent_generator import agents
from examples.agent_generator.bodies import Decompose, Generate, ModifyTemplate, Update
from examples.agent_generator.deliveries import open_deliveries
from examples.agent_generator.directives import DirectiveError
from examples.agent_generator.faults import Fault
from examples.agent_generator.options import Options
from examples.agent_generator.works import KeyReused, Reply, TooMuch
from examples.agent_generator.workshop import Unacceptable, Workshop
from examples.agent_platform.app import PREFIX, create_platform_app, use_platform
from examples.agent_platform.options import PlatformOptions
from examples.agent_platform.parts import open_platform

MAX_BODY_BYTES = 8_000_000
router = APIRouter()


def _workshop_of(request: Request) -> Workshop:
    workshop: Workshop = request.app.state.workshop
    return workshop


Shop = Annotated[Workshop, Depends(_workshop_of)]
Key = Annotated[str | None, Header(alias="idempotency-key", max_length=255)]


@router.post("/api/decompose-description")
async def decompose_description(body: Decompose, shop: Shop) -> dict[str, Any]:
    return await shop.decompose(body)


@router.post("/api/generate-agent")
async def generate_agent(body: Generate, shop: Shop, key: Key = None) -> Response:
    def make() -> dict[str, Any]:
        return agents.build_agent(body.instructions, body.operation_id)

    return _response(await shop.work(body, body.instructions, make, key))


@router.post("/api/update-agent")
async def update_agent(body: Update, shop: Shop, key: Key = None) -> Response:
    def make() -> dict[str, Any]:
        return agents.update_agent(body.current_agent_json, body.update_request, body.operation_id)

    return _response(await shop.work(body, body.update_request, make, key))


@router.post("/api/template-modification")
async def modify_template(body: ModifyTemplate, shop: Shop, key: Key = None) -> Response:
    def make() -> dict[str, Any]:
        request, template = body.modification_request, body.template_agent_json
        return agents.modify_template(template, request, body.context, body.operation_id)

    return _response(await shop.work(body, [body.modification_request, body.context], make, key))


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@router.get("/works")
async def works(shop: Shop) -> list[dict[str, Any]]:
    """Lists recent requests by idempotency key: how often each was received, and how often it was done."""
    return shop.works.overview()


def create_app(options: Options, platform_options: PlatformOptions = PlatformOptions()) -> FastAPI:
    """Creates the app of one process: the generator, which keeps its state in memory, and the platform."""
    platform_app = create_platform_app(platform_options.api_key)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_deliveries(options) as deliveries,
            open_platform(platform_options, deliveries, options.callback_base) as platform,
        ):
            use_platform(platform_app, platform)
            app.state.workshop = Workshop(options, deliveries)
            try:
                yield
            finally:
                await app.state.workshop.works.stop()

    app = FastAPI(title="Agent generator", lifespan=lifespan, max_body_size=MAX_BODY_BYTES)
    app.include_router(router)
    app.mount(PREFIX, platform_app)
    app.add_exception_handler(Fault, _go_wrong)
    app.add_exception_handler(DirectiveError, _refuse(400, "validation_error"))
    app.add_exception_handler(Unacceptable, _refuse(422, "validation_error"))
    app.add_exception_handler(KeyReused, _refuse(422, "validation_error"))
    app.add_exception_handler(TooMuch, _refuse(503, "service_unavailable"))
    return app


def _response(reply: Reply) -> Response:
    return JSONResponse(reply.document, reply.status)


def _refuse(status: int, error_type: str) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        sentence = str(error) or type(error).__doc__ or ""
        return JSONResponse({"success": False, "error": sentence, "error_type": error_type}, status)

    return answer


def _go_wrong(_: Request, fault: Exception) -> Response:
    assert isinstance(fault, Fault)
    return fault.response
