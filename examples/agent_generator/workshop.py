"""Does the work of a request, either at once or after accepting it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from examples.agent_generator.bodies import Decompose, WorkRequest
from examples.agent_generator.deliveries import Deliveries, Order, may_call_back
from examples.agent_generator.directives import Behaviour
from examples.agent_generator.faults import fault_of
from examples.agent_generator.goals import decompose
from examples.agent_generator.options import Options
from examples.agent_generator.works import Reply, Works
from examples.agent_platform.validation import InvalidGraph

_QUESTIONS = [{"question": "Where should the result go?", "keyword": "output", "example": "a mail to me"}]
_ERRORS = {
    "validation_error": "A link names a node that does not exist.",
    "patch_error": "The change does not fit the agent.",
    "llm_parse_error": "The model's answer is not an agent.",
}
logger = logging.getLogger(__name__)


class Unacceptable(Exception):
    """The outcome cannot be delivered."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. `make` builds the agent."""

    operation_id: str
    task_id: str
    callback_url: str | None
    behaviour: Behaviour
    make: Callable[[], dict[str, Any]]

    @property
    def order(self) -> Order:
        behaviour = self.behaviour
        return Order(
            self.operation_id, self.task_id, self.callback_url, behaviour.way, behaviour.copies, behaviour.auth
        )


@dataclass(frozen=True, slots=True)
class Workshop:
    options: Options
    deliveries: Deliveries
    works: Works = field(default_factory=Works)

    async def decompose(self, body: Decompose) -> dict[str, Any]:
        """Returns the answer to a description after the delay, or the requested error. Raises DirectiveError, Fault."""
        behaviour = Behaviour.of(self.options, [body.description, body.user_instruction], decompose=True)
        self._fail_as_asked(behaviour, _fingerprint(body))
        await asyncio.sleep(behaviour.delay)
        if behaviour.error_type:
            return _failure(behaviour.error_type)
        return decompose(body.description, body.user_instruction, body.library_agents or [], behaviour.answer)

    async def work(self, body: WorkRequest, said: Any, make: Callable[[], dict[str, Any]], key: str | None) -> Reply:
        """Replies 202, or 200 with the result of the work. `said` is the text of the user in the request.

        Raises DirectiveError, Fault, Unacceptable, KeyReused, TooMuch.
        """
        job = Job(body.operation_id, body.task_id, body.callback_url, Behaviour.of(self.options, said), make)
        self._check(job)
        fingerprint = _fingerprint(body)
        self._fail_as_asked(job.behaviour, fingerprint)
        key = key or body.operation_id
        return await self.works.reply_to(key, fingerprint, lambda: self._begin(key, job))

    def _check(self, job: Job) -> None:
        if job.behaviour.way == "webhook" and not job.callback_url:
            raise Unacceptable("There is no callback URL.")
        if job.callback_url and not may_call_back(job.callback_url, self.options.callback_base):
            raise Unacceptable("This callback URL is not allowed.")
        if job.behaviour.way == "stream" and not self.deliveries.has_stream:
            raise Unacceptable("GENERATOR_REDIS_URL is not set: there is no Redis Stream.")

    def _fail_as_asked(self, behaviour: Behaviour, request: bytes) -> None:
        if fault := fault_of(behaviour, self.works.count_try(request)):
            raise fault

    async def _begin(self, key: str, job: Job) -> Reply:
        logger.info("operation %s: %s", job.operation_id, job.behaviour.way)
        if job.behaviour.way == "now":
            return Reply(200, await self._do(key, job))
        self.works.start(self._do_and_tell(key, job))
        return Reply(202, {"status": "accepted", "operation_id": job.operation_id, "task_id": job.task_id})

    async def _do(self, key: str, job: Job) -> dict[str, Any]:
        """Waits for the delay and reports progress meanwhile. Returns the body of a 200 response."""
        pauses = job.behaviour.progress + 1
        for number in range(1, pauses + 1):
            await asyncio.sleep(job.behaviour.delay / pauses)
            if number < pauses and job.callback_url:
                await self.deliveries.report(job.order, 100 * number // pauses, f"Part {number} of {pauses} is done")
        self.works.done[key] += 1
        if job.behaviour.error_type:
            return _failure(job.behaviour.error_type)
        if job.behaviour.clarify and job.behaviour.way == "now":
            return {"success": True, "type": "clarifying_questions", "questions": _QUESTIONS}
        try:
            return {"success": True, "agent_json": job.make()}
        except InvalidGraph as error:
            return {**_failure("validation_error"), "error": str(error)}

    async def _do_and_tell(self, key: str, job: Job) -> None:
        made = await self._do(key, job)
        if made["success"]:
            outcome = {"success": True, "result": {"agent_json": made["agent_json"]}}
        else:  # the webhook has a field for the text, but none for the type
            outcome = {"success": False, "error": f"{made['error_type']}: {made['error']}"}
        await self.deliveries.complete(job.order, outcome)


def _fingerprint(body: BaseModel) -> bytes:
    return hashlib.sha256(body.model_dump_json().encode()).digest()


def _failure(error_type: str) -> dict[str, Any]:
    error = _ERRORS.get(error_type, "The agent could not be made.")
    return {"success": False, "error": error, "error_type": error_type, "details": {"step": 1}}
