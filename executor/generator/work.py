"""Work for the generator: made once and stored with the operation, so that every try sends the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import orjson

from backend.chat.models import Json
from backend.ids import OperationId, TaskId
from executor.generator.answers import Instructions
from executor.generator.failures import ErrorType, GeneratorFailure

GENERATE, UPDATE, MODIFY_TEMPLATE = "/api/generate-agent", "/api/update-agent", "/api/template-modification"
_PATHS = frozenset({GENERATE, UPDATE, MODIFY_TEMPLATE})


@dataclass(frozen=True, slots=True)
class Work:
    """A request to the generator, without the ids of its operation.

    `body` is the text of a JSON object: jsonb would reorder the keys of an object, but it keeps a text unchanged.
    """

    path: str
    body: str

    @classmethod
    def generate(cls, instructions: Instructions, library_agents: Sequence[Json] | None = None) -> Self:
        """Returns work that makes a new agent. Raises GeneratorFailure `request_error` for values that are not JSON."""
        return cls._of(GENERATE, instructions=instructions.as_json(), library_agents=_listed(library_agents))

    @classmethod
    def update(
        cls, update_request: str, current_agent_json: Json, library_agents: Sequence[Json] | None = None
    ) -> Self:
        """Returns work that changes an agent of the user. Raises as `generate` does."""
        return cls._of(
            UPDATE,
            update_request=update_request,
            current_agent_json=current_agent_json,
            library_agents=_listed(library_agents),
        )

    @classmethod
    def modify_template(cls, template_agent_json: Json, modification_request: str, context: str | None = None) -> Self:
        """Returns work that makes an agent of the user from a template. Raises as `generate` does."""
        return cls._of(
            MODIFY_TEMPLATE,
            template_agent_json=template_agent_json,
            modification_request=modification_request,
            context=context or None,
        )

    @classmethod
    def _of(cls, path: str, **members: Json) -> Self:
        return cls(path, encode({name: value for name, value in members.items() if value is not None}).decode())

    def as_json(self) -> Json:
        return {"path": self.path, "body": self.body}

    @classmethod
    def from_json(cls, stored: Json) -> Self:
        """Returns the work that `as_json` stored. Raises ValueError for any other value."""
        match stored:
            case {"path": str(path), "body": str(body)} if path in _PATHS and isinstance(orjson.loads(body), dict):
                return cls(path, body)
        raise ValueError("not the work of a generator")

    def for_operation(self, operation_id: OperationId, task_id: TaskId, callback_url: str) -> bytes:
        """Returns the body to send, which is always the same for the same operation."""
        names = {"operation_id": operation_id, "task_id": task_id, "callback_url": callback_url}
        return encode({**orjson.loads(self.body), **names})


def encode(document: Json) -> bytes:
    """Returns JSON. Raises GeneratorFailure `request_error` for a lone surrogate or too deep nesting."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise GeneratorFailure(ErrorType.REQUEST_ERROR, note="not JSON") from None


def _listed(agents: Sequence[Json] | None) -> list[Json] | None:
    return list(agents) if agents else None
