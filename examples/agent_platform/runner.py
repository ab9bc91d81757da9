"""The runner: carries out the runs of a process, and goes on with those that an earlier process began."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from examples.agent_generator.deliveries import Deliveries, Order
from examples.agent_platform.blocks.block import Context, Services
from examples.agent_platform.execution import NodeResult, NodeStatus, Outcome, execute, interrupted
from examples.agent_platform.graph import Graph, problems_with_input
from examples.agent_platform.graphs import Graphs
from examples.agent_platform.options import Limits
from examples.agent_platform.problems import Problem, invalid_input
from examples.agent_platform.runs import NewRun, Run, Runs, RunStatus

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a run goes on after an error of the database."""
TOLD_AT_ONCE = 100
"""Ends of runs that are delivered at the same time. Each has up to a megabyte, and a receiver may be away for long."""
_BEGUN = NodeResult(NodeStatus.RUNNING)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _RunRecord:
    """Keeps how far one run has come."""

    runs: Runs
    id: str

    async def begin(self, node_id: str) -> None:
        await self.runs.set_node(self.id, node_id, _BEGUN)

    async def end(self, node_id: str, result: NodeResult) -> None:
        await self.runs.set_node(self.id, node_id, result)


class Runner:
    """The runs under way in this process. When it stops, they stay open and go on after the next start."""

    def __init__(
        self, runs: Runs, graphs: Graphs, services: Services, deliveries: Deliveries | None, limits: Limits
    ) -> None:
        self._runs = runs
        self._graphs = graphs
        self._services = services
        self._deliveries = deliveries
        self._limits = limits
        self._at_once = asyncio.Semaphore(limits.runs_at_once)
        self._at_once_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._carrying: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._telling = asyncio.Semaphore(TOLD_AT_ONCE)

    async def resume(self) -> None:
        """Goes on with the runs of an earlier process, and delivers the ends that it had not delivered."""
        for id in await self._runs.untold():
            self._background(self._deliver(id))
        for run in await self._runs.unended():
            self._carry(run)

    async def start(self, new: NewRun) -> Run:
        """Starts a run. The same key gets the same run. Raises Problem: 404, 409, 422, 429."""
        stored = await self._graphs.get(new.user_id, new.graph_id, new.version)
        if problems := problems_with_input(stored.graph.input_schema, new.node_input):
            raise invalid_input(problems)
        run, is_new = await self._runs.create(new)
        if is_new:
            self._carry(run)
        return run

    async def cancel(self, run: Run) -> Run:
        """Cancels a run. Its nodes under way are stopped; what they have done is not undone."""
        ended = await self._runs.cancel(run.id)
        if (task := self._carrying.get(run.id)) is not None and ended.status is RunStatus.CANCELLED:
            task.cancel()
            self._tell(ended)
        return ended

    async def forget(self, user_id: str, graph_id: str | None) -> None:
        """Cancels and deletes the runs of a user, or those of one graph. Who asks for one of them is told 404."""
        for run in await self._runs.unended_of(user_id, graph_id):
            await self.cancel(run)
        await self._runs.forget(user_id, graph_id)

    async def nodes_of(self, run: Run) -> list[dict[str, Any]]:
        """Returns the nodes of a run as JSON, in the order of its graph."""
        progress = await self._runs.progress(run.id)
        try:
            graph = (await self._graphs.get(run.user_id, run.graph_id, run.version)).graph
            names = {id: node.name for id, node in graph.nodes.items()}
        except Problem:  # the limits or the blocks were changed since
            names = {id: id for id in progress.ended}
        rest = {
            RunStatus.CANCELLED: NodeResult(NodeStatus.CANCELLED),
            RunStatus.FAILED: NodeResult(NodeStatus.SKIPPED),
        }.get(run.status, NodeResult(NodeStatus.QUEUED))
        results = dict.fromkeys(progress.begun, _BEGUN) | progress.ended
        return [_node_json(id, name, results.get(id, rest)) for id, name in names.items()]

    async def stop(self) -> None:
        tasks = [*self._carrying.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _carry(self, run: Run) -> None:
        task = asyncio.create_task(self._until_ended(run), name=f"run {run.id}")
        self._carrying[run.id] = task
        task.add_done_callback(lambda _: self._carrying.pop(run.id, None))

    async def _until_ended(self, run: Run) -> None:
        pause = FIRST_PAUSE
        of_user = self._at_once_of.setdefault(run.user_id, asyncio.Semaphore(self._limits.runs_at_once_of_user))
        async with of_user, self._at_once:
            while True:
                try:
                    self._tell(await self._carry_out(run))
                    return
                except sqlite3.Error as error:
                    logger.error("run %s is interrupted by the database: %s", run.id, error)  # noqa: TRY400
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _carry_out(self, run: Run) -> Run:
        """Runs what is left of a run. Returns the ended run."""
        try:
            graph = (await self._graphs.get(run.user_id, run.graph_id, run.version)).graph
        except Problem as problem:  # the limits or the blocks were changed since
            return await self._runs.end(run.id, Outcome(None, problem.sentence))
        await self._runs.begin(run.id)
        context = Context(run.user_id, run.graph_id, run.id, self._services, run.node_input, run.payload)
        record = _RunRecord(self._runs, run.id)
        try:
            finished = await self._finished(run, graph, record)
            outcome = await execute(graph, context, record, self._limits, finished)
        except sqlite3.Error:
            raise
        except Exception:  # the boundary of a run: one that never ends would count for its user for ever
            logger.exception("run %s failed by an internal error", run.id)
            outcome = Outcome(None, "an internal error")
        return await self._runs.end(run.id, outcome)

    async def _finished(self, run: Run, graph: Graph, record: _RunRecord) -> dict[str, NodeResult]:
        """Returns the nodes that have ended. Those that an earlier process began may have to end now."""
        progress = await self._runs.progress(run.id)
        for id in progress.begun & graph.nodes.keys():
            if (result := interrupted(graph, id, progress.ended)) is not None:
                progress.ended[id] = result
                await record.end(id, result)
        return progress.ended

    def _tell(self, run: Run) -> None:
        """Delivers the end of a run to the operation that waits for it."""
        if run.operation is not None and run.operation.callback_url is not None:
            self._background(self._deliver(run.id))

    async def _deliver(self, id: str) -> None:
        """Delivers the end of a run. Its outputs are read when it is its turn."""
        async with self._telling:
            run = await self._runs.find(id)
            operation = None if run is None else run.operation
            if run is None or operation is None or operation.callback_url is None or self._deliveries is None:
                return
            order = Order(operation.id, operation.task_id or "", operation.callback_url, "webhook")
            await self._deliveries.complete(order, run.completion)
            await self._runs.mark_told(id)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("delivery failed: %r", error)


def _node_json(id: str, name: str, result: NodeResult) -> dict[str, Any]:
    node = {"node_id": id, "name": name, "status": result.status, "outputs": dict(result.outputs)}
    return node if result.error is None else {**node, "error": result.error}
