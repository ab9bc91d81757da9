"""The tool host of one attempt: gives tool calls their context, and checks the claim before a tool runs."""

from __future__ import annotations

from typing import Any

from backend.chat.leases.liveness import clock
from backend.chat.models import Task
from backend.chat.outcomes import Operation
from backend.chat.resources import Resources
from backend.chat.store import operations, questions, tasks
from backend.errors import Fenced
from executor.operations import Operations
from executor.tools.approval import Decision
from executor.tools.context import ToolContext
from executor.tools.tool import Tool
from executor.turns.context import ExecutorContext
from executor.turns.output_files import OutputFiles


class AttemptToolHost:
    """A ToolHost (`executor.agent.calls`) for the attempt that has claimed `task`."""

    def __init__(self, resources: Resources, context: ExecutorContext, task: Task) -> None:
        self._resources = resources
        self._task = task
        self.operation: Operation | None = None
        """The operation that this attempt continues. None until it is read, and for a turn."""
        self._approval = context.approval
        self._can_ask = context.can_ask(task)
        self._operations = Operations(resources, task.session_id, context.start_work, context.waits)
        self._checked_at = clock()

    def context_of(self, tool_call_id: str) -> ToolContext:
        task, operation = self._task, self.operation
        return ToolContext(
            task.session_id,
            task.id,
            tool_call_id,
            task.user_id,
            self._resources.database,
            self._operations,
            can_ask=self._can_ask,
            resumed=operation if operation is not None and operation.to_run else None,
            claims=task.request.claims,
            keep_file=OutputFiles(self._resources, task.session_id, task.id).keep,
        )

    async def check_claim(self) -> None:
        """Raises Fenced if another executor has taken the task over.

        Asks Postgres only if this process's heartbeat was late since the last check. Raises Unavailable then, if
        Postgres is unavailable.
        """
        if not self._resources.liveness.pulse.lapsed_since(self._checked_at):
            return
        now = clock()
        async with self._resources.database.connection() as c:
            task = await tasks.get_task(c, self._task.id)
        if (task.attempt, task.owner) != (self._task.attempt, self._resources.me):
            raise Fenced
        self._checked_at = now

    async def decision_for(self, tool: Tool[Any]) -> Decision:
        """Returns what TOOL_APPROVAL, or the user for this whole session, has decided about the tool.

        Nobody can be asked in a temporary session, so it denies what needs an approval.
        """
        decision = self._approval.decision_for(tool)
        if self._task.request.temporary and decision is Decision.ASK:
            return Decision.DENY
        if decision is not Decision.ASK:
            return decision
        async with self._resources.database.connection() as c:
            always = await questions.is_always_allowed(c, self._task.session_id, tool.name)
        return Decision.ALLOW if always else Decision.ASK

    async def begin_run(self) -> None:
        """Stores that the approved call of this task is about to run. Raises Fenced if the claim is lost."""
        async with self._resources.database.connection() as c:
            await operations.begin_run(c, self._task)

    async def other_questions_wait(self) -> bool:
        """Returns True if this task continues a question, and another question of the same turn has no answer yet.

        The model goes on after the last answer.
        """
        operation = self.operation
        if operation is None or operation.work.asks is None:
            return False
        async with self._resources.database.connection() as c:
            return await questions.others_open(c, operation)
