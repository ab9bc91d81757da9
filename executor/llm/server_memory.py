"""The knowledge about one model at one server: what it refuses, its limits, and the forms of histories it accepts.

All of it but the forms is forgotten after FORGET_AFTER, since a server may have been changed, or a refusal misread.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from executor.llm.model import Prompt
from executor.llm.own_history import HistoryForm

logger = logging.getLogger(__name__)

FORGET_AFTER = 3_600.0  # seconds
MAX_CONVERSATIONS = 1_000
"""Conversations whose form is remembered."""


@dataclass(slots=True)
class Draft:
    """The requests of one model call, as the next one will be."""

    prompt: Prompt
    form: HistoryForm
    answer_tokens: int
    dropped: set[str] = field(default_factory=set)
    """Settings that are left out of this call alone."""
    known: frozenset[str] = frozenset()
    """What was known to be refused when the last request was written."""
    cuts: int = 0
    """Steps of shortening: 1 to half, 2 to the last exchange, 3 without the tools."""
    too_long: int = 0
    """Tokens of the messages that were refused last as too long."""
    tries: int = 0


class ServerMemory:
    """The memory of the model and server that `owner` names. `clock` returns seconds."""

    def __init__(self, owner: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.owner = owner
        self._clock = clock
        self._refused: dict[str, float] = {}
        self._limits: dict[str, tuple[int, float]] = {}
        self._told: set[str] = set()
        self._forms: OrderedDict[str, HistoryForm] = OrderedDict()

    def refuses(self, what: str) -> bool:
        since = self._refused.get(what)
        return since is not None and self._clock() - since < FORGET_AFTER

    def remember(self, what: str, sentence: str, draft: Draft) -> bool:
        """Remembers a refusal and logs it if it is the first of its kind.

        Returns False if it was known when the request was written, so that another request would not differ.
        """
        if what in draft.known:
            return False
        self._refused[what] = self._clock()
        if what not in self._told:
            self._told.add(what)
            logger.warning("model %s: %s", self.owner, sentence)
        return True

    def limit(self, name: str) -> int | None:
        known = self._limits.get(name)
        return known[0] if known is not None and self._clock() - known[1] < FORGET_AFTER else None

    def set_limit(self, name: str, tokens: int, sentence: str = "") -> None:
        self._limits[name] = tokens, self._clock()
        if sentence and name not in self._told:
            self._told.add(name)
            logger.warning("model %s: %s", self.owner, sentence)

    def refused(self) -> frozenset[str]:
        return frozenset(what for what in self._refused if self.refuses(what))

    def form_of(self, conversation: str | None) -> HistoryForm:
        return self._forms.get(conversation or "", HistoryForm.OWN)

    def set_form(self, conversation: str, form: HistoryForm) -> None:
        self._forms[conversation] = form
        self._forms.move_to_end(conversation)
        if len(self._forms) > MAX_CONVERSATIONS:
            self._forms.popitem(last=False)
