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


def create_app(options: Options) -> FastAPI:
    """Creates the app of one process. It keeps its state in memory."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_deliveries(options) as deliveries:
            app.state.workshop = Workshop(options, deliveries)
            try:
                yield
            finally:
                await app.state.workshop.works.stop()

    app = FastAPI(title="Agent generator", lifespan=lifespan, max_body_size=MAX_BODY_BYTES)
    app.include_router(router)
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
