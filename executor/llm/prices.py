"""The cost of a model's tokens: by the price in the operator's list, else by the table of the package genai-prices.

The table knows hosted providers by their base URL (genai-prices 0.2, read 2026-11-30), in US dollars. It is as old as
the installed package; nothing is fetched.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib import import_module
from typing import Any

from backend.chat.models import Usage
from backend.model_list import Price

TABLE = "genai_prices"
"""The package takes a quarter of a second to import, and its first price up to a sixth of one. Both are done in a
thread, before the first turn that needs a price."""
_MILLION = 1_000_000


class PriceTable:
    """The table of one process. It knows no price until `load` has returned."""

    def __init__(self) -> None:
        self._table: Any = None
        self._unknown: set[tuple[str, str]] = set()

    async def load(self) -> None:
        if self._table is None:
            self._table = await asyncio.to_thread(_load)

    def cost(self, base_url: str, model: str, usage: Usage) -> dict[str, float]:
        """Returns the cost by currency. Empty if the table does not know the model at this server."""
        if self._table is None or (base_url, model) in self._unknown:
            return {}
        try:
            tokens = self._table.Usage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=min(usage.cached_tokens, usage.input_tokens),
                output_tokens=usage.output_tokens,
            )
            price = self._table.calc_price(tokens, model_ref=model, provider_api_url=base_url)
        except LookupError:  # an unknown server or model
            self._unknown.add((base_url, model))
            return {}
        except ValueError:  # these tokens have no price
            return {}
        return {"USD": float(price.total_price)}


def _load() -> Any:
    table = import_module(TABLE)
    with suppress(LookupError, ValueError):  # any model will do
        table.calc_price(table.Usage(), model_ref="gpt-4o", provider_id="openai")
    return table


def cost_at(price: Price, usage: Usage) -> dict[str, float]:
    """Returns the cost by currency at a price of the operator's list."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    cached_price = price.input if price.cached is None else price.cached
    paid = (usage.input_tokens - cached) * price.input + cached * cached_price + usage.output_tokens * price.output
    return {price.currency: paid / _MILLION}
