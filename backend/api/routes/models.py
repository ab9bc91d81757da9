"""The models among which callers choose."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import AppState, AsCaller
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import ModelOut, ModelsOut, PriceOut
from backend.config import Settings, accepted_file_kinds
from backend.model_list import ModelEntry, Price

router = APIRouter(tags=["models"], route_class=CallerRoute, responses=responses(401, 413, 422, 503))


@router.get("/models")
async def list_models(api: AppState, caller: AsCaller) -> ModelsOut:
    """Returns the models that a message may name. There is one if the operator lists no others."""
    settings = api.resources.settings
    return ModelsOut(models=[_shown(entry, settings) for entry in settings.models.shown])


def _shown(entry: ModelEntry, settings: Settings) -> ModelOut:
    return ModelOut(
        id=entry.id,
        label=entry.shown,
        default=entry.id == settings.models.default.id,
        context_tokens=entry.context_tokens or settings.chat_context_tokens,
        max_output_tokens=entry.max_output_tokens or settings.chat_max_output_tokens,
        efforts=list(entry.efforts),
        effort=entry.effort,
        images="image" in accepted_file_kinds(entry, settings),
        accepts=sorted(accepted_file_kinds(entry, settings)),
        price=None if entry.price is None else _price(entry.price),
    )


def _price(price: Price) -> PriceOut:
    cached = price.input if price.cached is None else price.cached
    return PriceOut(input=price.input, output=price.output, cached=cached, currency=price.currency)
