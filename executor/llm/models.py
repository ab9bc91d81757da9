"""The open models of one executor: one client for each model of the list, until the process stops."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from backend.chat.models import Usage
from backend.config import Settings, accepted_file_kinds, variables_of_models
from backend.model_list import ANTHROPIC_FORMAT, ModelEntry, ModelList
from executor.llm.model import Model
from executor.llm.prices import PriceTable, cost_at
from executor.llm.providers import open_listed, open_model

logger = logging.getLogger(__name__)

MAX_TOLD = 100
"""Removed models for which the log gets a line, at most."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model of the list that may be asked. Its limits are in tokens."""

    entry: ModelEntry
    model: Model
    context_tokens: int
    max_output_tokens: int
    base_url: str
    answers_as: str
    """The name under which its answers are stored, see `Usage.model`."""
    accepts: frozenset[str] = frozenset()
    """The kinds of files that it takes whole: `image`, `pdf`."""

    @property
    def id(self) -> str:
        return self.entry.id

    def effort(self, wanted: str | None) -> str | None:
        """Returns the wanted level if the model has it, else the model's own."""
        return wanted if wanted is not None and self.entry.knows(wanted) else self.entry.effort


class Models:
    """The models by id. `title` is the model that names sessions; None: their first words name them. `summary` is the
    model that summarises conversations; None: the one that answers does.
    """

    def __init__(
        self, known: ModelList, opened: dict[str, OpenModel], title: OpenModel | None, summary: OpenModel | None
    ) -> None:
        self._known = known
        self._opened = opened
        self._told: set[str] = set()
        self._prices = PriceTable()
        self.title = title
        self.summary = summary

    @property
    def default(self) -> OpenModel:
        return self._opened[self._known.default.id]

    @property
    def names(self) -> set[str]:
        """The names of all models at their providers, with those for titles and summaries."""
        others = [opened.model for opened in (self.summary, self.title) if opened is not None]
        return {model.name for model in (*(opened.model for opened in self._opened.values()), *others)}

    def choose(self, id: str | None) -> OpenModel:
        """Returns the model with this id. If the operator has removed it, the default answers, and the log says so."""
        if id is None:
            return self.default
        entry = self._known.find(id)
        if entry is None:
            if id not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(id)
                logger.warning("a conversation's model is not in CHAT_MODELS; the default answers", extra={"model": id})
            return self.default
        return self._opened[entry.id]

    async def load_prices(self) -> None:
        """Loads the table of prices, unless the list has the price of each model that could be in it."""
        if any(opened.entry.price is None and opened.base_url for opened in self._opened.values()):
            await self._prices.load()

    def priced(self, opened: OpenModel, usage: Usage) -> Usage:
        """Returns the tokens with the model's name and their cost."""
        if not usage.total_tokens:  # stopped before its provider told any, so the cost is not known
            return replace(usage, model=opened.answers_as)
        price = opened.entry.price
        if price is not None:
            return replace(usage, model=opened.answers_as, cost=cost_at(price, usage))
        cost = self._prices.cost(opened.base_url, opened.model.name, usage) if opened.base_url else {}
        return replace(usage, model=opened.answers_as, cost=cost)

    def fallback_of(self, opened: OpenModel) -> OpenModel | None:
        entry = self._known.fallback_of(opened.entry)
        return None if entry is None else self._opened[entry.id]


@asynccontextmanager
async def open_models(settings: Settings) -> AsyncIterator[Models]:
    """Yields the models of the settings. Raises ConfigError if one of them cannot be opened."""
    known = settings.models
    opened: dict[str, OpenModel] = {}
    values = variables_of_models(known.variables)
    async with AsyncExitStack() as stack:
        for entry in known.entries:
            opening = open_listed(settings, entry, values) if known.listed else open_model(settings)
            opened[entry.id] = _opened(settings, known, entry, await stack.enter_async_context(opening))
        title = await _open_other(settings, known, known.title, opened, stack)
        summary = await _open_other(settings, known, known.summary, opened, stack)
        yield Models(known, opened, title, summary)


def _opened(settings: Settings, known: ModelList, entry: ModelEntry, model: Model) -> OpenModel:
    context = entry.context_tokens or settings.chat_context_tokens
    most = entry.max_output_tokens or settings.chat_max_output_tokens
    shown = entry.id if known.listed else model.name
    accepts = accepted_file_kinds(entry, settings)
    return OpenModel(entry, model, context, most, _server_of(settings, entry, known), shown, accepts)


def _server_of(settings: Settings, entry: ModelEntry, known: ModelList) -> str:
    """Returns the base URL of a model's server. Empty for the scripted model."""
    provider = entry.provider if known.listed else settings.provider
    if provider == "scripted":
        return ""
    usual = "https://api.anthropic.com" if provider in ANTHROPIC_FORMAT else "https://api.openai.com/v1"
    if known.listed:
        return entry.base_url or usual
    return (settings.chat_base_url if provider in ANTHROPIC_FORMAT else settings.model_base_url) or usual


async def _open_other(
    settings: Settings,
    known: ModelList,
    entry: ModelEntry | None,
    opened: dict[str, OpenModel],
    stack: AsyncExitStack,
) -> OpenModel | None:
    """Returns the model for titles or for summaries: one of the list, or another one at the same server."""
    if entry is None or known.listed:
        return None if entry is None else opened[entry.id]
    model = await stack.enter_async_context(open_model(settings, name=entry.model))
    return _opened(settings, known, entry, model)
