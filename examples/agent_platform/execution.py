"""Execution: runs the nodes of a graph, each as soon as the nodes before it have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import TopologicalSorter
from typing import Any, Protocol

import orjson

from examples.agent_platform.blocks.block import BlockFailed, Context, InvalidInputs
from examples.agent_platform.graph import Graph, Link, Node, Pin
from examples.agent_platform.options import Limits

NODES_AT_ONCE = 10
logger = logging.getLogger(__name__)


class NodeStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The end of a node. `outputs` has the values of the outputs that fired."""

    status: NodeStatus
    outputs: Mapping[str, list[Any]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run: its output, or the error."""

    output: dict[str, list[Any]] | None
    error: str | None = None


class Record(Protocol):
    """Keeps how far a run has come."""

    async def begin(self, node_id: str) -> None: ...
    async def end(self, node_id: str, result: NodeResult) -> None: ...


SKIPPED = NodeResult(NodeStatus.SKIPPED)


async def execute(
    graph: Graph, context: Context, record: Record, limits: Limits, finished: Mapping[str, NodeResult]
) -> Outcome:
    """Runs the nodes that are not among `finished`. The first failure ends the run, after the nodes under way."""
    execution = _Execution(graph, context, record, limits, dict(finished))
    try:
        async with asyncio.timeout(limits.run_seconds):
            await execution.run()
    except TimeoutError:
        await execution.give_up(f"the run takes longer than {limits.run_seconds:g} seconds")
    finally:
        await execution.stop()
    await execution.skip_rest()
    return execution.outcome()


class _Execution:
    def __init__(
        self, graph: Graph, context: Context, record: Record, limits: Limits, results: dict[str, NodeResult]
    ) -> None:
        self._graph = graph
        self._context = context
        self._record = record
        self._limits = limits
        self._results = results
        self._running: dict[asyncio.Task[NodeResult], str] = {}
        self._error: str | None = None
        self._sizes = {id: _size(result.outputs) for id, result in results.items()}
        self._room = limits.run_output - sum(self._sizes.values())
        for id, result in results.items():
            self._note_failure(id, result)

    async def run(self) -> None:
        sorter = TopologicalSorter(self._graph.parents)
        sorter.prepare()
        waiting: list[str] = []
        while sorter.is_active() or self._running:
            waiting += sorter.get_ready()
            while waiting and self._error is None and len(self._running) < NODES_AT_ONCE:
                await self._start(waiting.pop(0), sorter)
                waiting += sorter.get_ready()
            if not self._running:
                if self._error is not None:
                    return
                continue
            ended, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                await self._settle(self._running.pop(task), task.result(), sorter)

    async def _start(self, id: str, sorter: TopologicalSorter[str]) -> None:
        """Starts a node, or passes it by if it has ended before or nothing reaches it."""
        if id in self._results:
            sorter.done(id)
            return
        try:
            inputs = inputs_of(self._graph, id, self._results)
        except InvalidInputs as error:
            await self._settle(id, _invalid(error), sorter)
            return
        if inputs is None:
            await self._settle(id, SKIPPED, sorter)
            return
        if sum(self._sizes[link.source_id] for link in self._graph.links_into[id]) > self._limits.run_output:
            await self._settle(id, _failed(f"its inputs are larger than {self._limits.run_output} bytes"), sorter)
            return
        await self._record.begin(id)
        self._running[asyncio.create_task(self._run_node(self._graph.nodes[id], inputs))] = id

    async def _settle(self, id: str, result: NodeResult, sorter: TopologicalSorter[str]) -> None:
        self._sizes[id] = _size(result.outputs)
        self._room -= self._sizes[id]
        if self._room < 0:
            result = _failed(f"the outputs of the run are larger than {self._limits.run_output} bytes")
        self._results[id] = result
        self._note_failure(id, result)
        await self._record.end(id, result)
        sorter.done(id)

    def _note_failure(self, id: str, result: NodeResult) -> None:
        if result.status is NodeStatus.FAILED and self._error is None:
            self._error = f"node {self._graph.nodes[id].name}: {result.error}"

    async def _run_node(self, node: Node, inputs: dict[str, Any]) -> NodeResult:
        try:
            outputs = await node.block.run(node.block.parse(inputs, strict=False), self._context)
        except InvalidInputs as error:
            return _invalid(error)
        except BlockFailed as error:
            return _failed(str(error))
        except Exception:  # the boundary of a node
            logger.exception("block %s failed by an internal error", node.block.name)
            return _failed("an internal error")
        if _size(outputs) > self._limits.node_output:
            return _failed(f"its output is larger than {self._limits.node_output} bytes")
        return NodeResult(NodeStatus.COMPLETED, {name: [value] for name, value in outputs.items()})

    async def give_up(self, error: str) -> None:
        """Ends the nodes under way as failed."""
        self._error = self._error or error
        names = list(self._running.values())
        await self.stop()
        for id in names:
            self._results[id] = _failed(f"{error}, and this node may have done its work")
            await self._record.end(id, self._results[id])

    async def stop(self) -> None:
        """Cancels the nodes under way."""
        tasks = list(self._running)
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def skip_rest(self) -> None:
        for id in self._graph.nodes:
            if id not in self._results:
                self._results[id] = SKIPPED
                await self._record.end(id, SKIPPED)

    def outcome(self) -> Outcome:
        if self._error is not None:
            return Outcome(None, self._error)
        output: dict[str, list[Any]] = {}
        for id, node in self._graph.nodes.items():
            if node.block.kind == "output" and self._results[id].status is NodeStatus.COMPLETED:
                output.setdefault(node.defaults["name"], []).extend(self._results[id].outputs["output"])
        return Outcome(output)


def inputs_of(graph: Graph, id: str, results: Mapping[str, NodeResult]) -> dict[str, Any] | None:
    """Returns the inputs of a node, or None if a linked input gets nothing, which skips the node.

    Several links into one input are alternatives: one that brings a value is enough. Links that fill a member or an
    item come after those that bring a whole value. Raises InvalidInputs if that value has no members or no items.
    """
    inputs = {name: _copied(value) for name, value in graph.nodes[id].defaults.items()}
    arrived: dict[str, bool] = {}
    for link in sorted(graph.links_into[id], key=lambda link: Pin.of(link.sink_name).part is not None):
        values = results[link.source_id].outputs.get(link.source_name)
        arrived[link.sink_name] = arrived.get(link.sink_name, False) or values is not None
        if values is not None:
            _put(inputs, link, values[-1])
    return inputs if all(arrived.values()) else None


def interrupted(graph: Graph, id: str, results: Mapping[str, NodeResult]) -> NodeResult | None:
    """Returns the end of a node that was under way when the process died, or None if it may run again."""
    block = graph.nodes[id].block
    try:
        inputs = inputs_of(graph, id, results) or {}
        may_repeat = block.may_repeat(block.parse(inputs, strict=False))
    except InvalidInputs:
        may_repeat = True  # it fails before it does anything
    return None if may_repeat else _failed("interrupted, may have run")


def _put(inputs: dict[str, Any], link: Link, value: Any) -> None:
    """Puts a value that came over a link into the inputs."""
    pin = Pin.of(link.sink_name)
    if pin.part is None:
        inputs[pin.name] = _copied(value)
    elif isinstance(pin.part, str):
        members = inputs.setdefault(pin.name, {})
        if not isinstance(members, dict):
            raise _no_parts(pin.name, "object", "member")
        members[pin.part] = value
    else:
        items = inputs.setdefault(pin.name, [])
        if not isinstance(items, list):
            raise _no_parts(pin.name, "list", "item")
        items += [None] * (pin.part + 1 - len(items))
        items[pin.part] = value


def _copied(value: Any) -> Any:
    """Returns a copy that links may fill."""
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list) else value


def _no_parts(name: str, kind: str, part: str) -> InvalidInputs:
    return InvalidInputs([{"field": name, "message": f"it is no {kind}, so a link cannot fill one {part}"}])


def _invalid(error: InvalidInputs) -> NodeResult:
    return _failed(f"its input is not valid: {error}")


def _failed(error: str) -> NodeResult:
    return NodeResult(NodeStatus.FAILED, error=error)


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value)) if value else 0
    except (TypeError, orjson.JSONEncodeError):  # integers beyond 64 bits
        return 2**63
