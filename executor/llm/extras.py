"""Members that an operator's list of models adds to the requests for one model, or leaves out of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.chat.models import Json
from executor.llm.provider_words import secrets_in
from executor.llm.server_memory import Draft

Remember = Callable[[str, str, Draft], bool]


@dataclass(frozen=True, slots=True)
class Extras:
    """Additions to the requests for a model. `efforts` has the members of a request for each level.

    `omit` are members of a request that are left out. `body` may replace members that the provider's module wrote.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Json] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
    efforts: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    @property
    def secrets(self) -> list[str]:
        """What the headers hold, to be hidden in what the provider says. Any of them may have a key, under any name."""
        return [secret for value in self.headers.values() for secret in secrets_in(value)]

    def apply(
        self, body: dict[str, Any], draft: Draft, refuses: Callable[[str], bool], optional: Collection[str]
    ) -> dict[str, Any]:
        """Returns the request with `body`, and then with the members of the effort unless the server refuses that
        effort.

        `optional` are members that the provider's module gives up when the server refuses them. The list does not put
        such a member back, nor one that the draft has dropped.
        """
        effort = draft.prompt.effort
        members = {} if effort is None or refuses(f"effort {effort}") else self.efforts.get(effort, {})
        added = {name: value for name, value in self.body.items() if name not in optional or not refuses(name)}
        left_out = self.omit | draft.dropped
        return {name: value for name, value in {**body, **added, **members}.items() if name not in left_out}

    def concede(self, reason: str, body: Mapping[str, Any], draft: Draft, remember: Remember) -> bool:
        """Gives up the effort if the refusal is about its members. Returns False if it is not.

        A name inside a member does not count while `body` has a member of that name: `max_tokens` is also a member of
        OpenRouter's `reasoning`.
        """
        from executor.llm.refusals import refuses_setting  # imported late: a scripted model does not need httpx2

        effort = draft.prompt.effort
        members = self.efforts.get(effort or "", {})
        inner = [name for value in members.values() if isinstance(value, dict) for name in value if name not in body]
        if not any(refuses_setting(reason, name) for name in (*members, *inner)):
            return False
        return remember(f"effort {effort}", f"it refuses the effort {effort}, which is left out", draft)


NO_EXTRAS = Extras()


NOT_SENT = frozenset({"self", "extra_headers", "extra_query", "extra_body", "timeout"})
"""Parameters of an SDK's `create` that are not members of a request."""


def known_to_sdk(body: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Returns the arguments of an SDK's `create` for a request, which is in the provider's own form already.

    Members that the SDK does not know go into `extra_body`, and so do lists and objects: the SDK would walk through
    them with the types of each member, which takes longer than all the rest of a turn (2,000 messages: 0.15 s).
    """
    given = {name: value for name, value in body.items() if name in known and not isinstance(value, list | dict)}
    further = {name: value for name, value in body.items() if name not in given}
    if "messages" in further:  # the SDK requires it, and `extra_body` replaces it
        given["messages"] = []
    return {**given, "extra_body": further} if further else given
