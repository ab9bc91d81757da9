"""Single calls of blocks, without a graph. The same idempotency key runs a block once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, InvalidInputs, Pins, Services
from examples.agent_platform.database import Connection, Database
from examples.agent_platform.options import Limits
from examples.agent_platform.problems import Problem, invalid_input, too_many

SECONDS = 90.0
KEPT = 86_400.0
"""Seconds for which the answer to a key is kept."""
AT_ONCE = 50
Answer = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    fingerprint: str
    task: asyncio.Task[Answer]


class Calls:
    """The calls under way in this process, and the answers of a day."""

    def __init__(self, database: Database, services: Services, limits: Limits) -> None:
        self._database = database
        self._services = services
        self._limits = limits
        self._running: dict[object, _Running] = {}

    async def call(self, user_id: str, block: Block, given: Mapping[str, Any], key: str | None) -> Answer:
        """Returns the outputs: `{name: [values]}`. Raises Problem: 409, 422, 429."""
        try:
            pins = block.parse(given, strict=True)
        except InvalidInputs as error:
            raise invalid_input(error.details) from None
        fingerprint = sha256(block.id.encode() + orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest()
        name = (user_id, key) if key is not None else object()
        running = self._running.get(name)
        if running is None:
            if len(self._running) >= AT_ONCE:
                raise too_many("Too many blocks are running. Please retry later.")
            task = asyncio.create_task(self._once(user_id, block, pins, key, fingerprint))
            running = self._running[name] = _Running(fingerprint, task)
            task.add_done_callback(lambda _: self._running.pop(name, None))
        if running.fingerprint != fingerprint:
            raise _key_reused()
        answer = await asyncio.shield(running.task)
        if "failed" in answer:
            raise Problem(422, "block_failed", f"The block failed: {answer['failed']}.")
        outputs: Answer = answer["outputs"]
        return outputs

    async def stop(self) -> None:
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, user_id: str, block: Block, pins: Pins, key: str | None, fingerprint: str) -> Answer:
        """Returns the answer that was given to this key, or else runs the block. Raises Problem: 409."""
        if key is not None and (found := await self._claim(user_id, key, fingerprint, block.may_repeat(pins))):
            return found
        return await self._run(user_id, block, pins, key)

    async def _claim(self, user_id: str, key: str, fingerprint: str, may_repeat: bool) -> Answer | None:
        """Returns the answer that was given to this key, or None if the block must run. Raises Problem: 409."""

        def act(c: Connection) -> Answer | None:
            c.execute("DELETE FROM calls WHERE made_at < ?", [time.time() - KEPT])
            found = c.execute("SELECT * FROM calls WHERE user_id = ? AND key = ?", [user_id, key]).fetchone()
            if found is None:
                c.execute("INSERT INTO calls VALUES (?, ?, ?, ?, NULL)", [user_id, key, fingerprint, time.time()])
                return None
            if found["fingerprint"] != fingerprint:
                raise _key_reused()
            if found["answer"] is None and not may_repeat:
                raise Problem(409, "conflict", "The first call with this key was interrupted and may have run.")
            answer: Answer | None = orjson.loads(found["answer"]) if found["answer"] is not None else None
            return answer

        return await self._database.transact(act)

    async def _run(self, user_id: str, block: Block, pins: Pins, key: str | None) -> Answer:
        context = Context(user_id, "", None, self._services)
        answer: Answer
        try:
            async with asyncio.timeout(SECONDS):
                outputs = await block.run(pins, context)
            answer = {"outputs": {name: [value] for name, value in outputs.items()}}
            if len(orjson.dumps(answer)) > self._limits.node_output:
                answer = {"failed": f"its output is larger than {self._limits.node_output} bytes"}
        except BlockFailed as error:
            answer = {"failed": str(error)}
        except TimeoutError:
            answer = {"failed": f"it takes longer than {SECONDS:.0f} seconds and may have run"}
        except Exception:  # the boundary of a call
            logger.exception("block %s failed by an internal error", block.name)
            answer = {"failed": "an internal error"}
        if key is not None:
            await self._keep(user_id, key, answer)
        return answer

    async def _keep(self, user_id: str, key: str, answer: Answer) -> None:
        def act(c: Connection) -> None:
            text = orjson.dumps(answer).decode()
            c.execute("UPDATE calls SET answer = ? WHERE user_id = ? AND key = ?", [text, user_id, key])

        await self._database.transact(act)


def _key_reused() -> Problem:
    return Problem(409, "conflict", "This idempotency key was used for another request.")
