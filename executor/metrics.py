"""Prometheus metrics of an executor: the turns that it ran, its model calls, its sweeps, and its census of all tasks.

Values of labels come from short lists: statuses, codes, names that the operator has configured. None comes from users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.chat.models import Task, TaskKind
from backend.chat.store.operators.census import Census
from backend.process_metrics import ProcessMetrics
from executor.model_metrics import ModelMetrics

_FIRST_CHUNK_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WHOLE_TURN_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200)
_WAIT_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 7200)
FIRST_CONTINUATION = 2
"""The first attempt at an operation's continuation; `store.operations.register` inserts its task with attempt 1."""
REPAIRS = (
    "turn_published", "turn_of_dead_owner", "operation_expired", "operation_abandoned", "operation_asked_again",
    "session_expired",
)  # fmt: skip
_REASONS = frozenset({"unreadable", "delivery_limit", "rejected", "expired", "maxlen"})


@dataclass(frozen=True, slots=True)
class ToolServer:
    """The state of an MCP server. `why` says why it is not connected; `unusable` names tools that cannot be offered.

    `left_out` is the number of its tools that have no room in a prompt. `failures` counts lost connections by reason.
    """

    name: str
    connected: bool
    tools: int
    why: str | None = None
    left_out: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


class _ToolServers(Collector):
    def __init__(self, servers: Callable[[], Sequence[ToolServer]], reasons: Iterable[str]) -> None:
        self._servers = servers
        self._no_failures = dict.fromkeys(reasons, 0)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("mcp_server_up", "Whether an MCP server is connected", labels=["server"])
        tools = GaugeMetricFamily("mcp_server_tools", "Tools that an MCP server offers now", labels=["server"])
        left_out = GaugeMetricFamily("mcp_server_tools_left_out", "Tools without room in a prompt", labels=["server"])
        failures = CounterMetricFamily(
            "mcp_server_failures", "Failed connections to an MCP server", labels=["server", "reason"]
        )
        for server in self._servers():
            up.add_metric([server.name], float(server.connected))
            tools.add_metric([server.name], server.tools)
            left_out.add_metric([server.name], server.left_out)
            for reason, number in (self._no_failures | server.failures).items():
                failures.add_metric([server.name, reason], number)
        yield from (up, tools, left_out, failures)


class _Census(Collector):
    def __init__(self, census: Callable[[], Census | None]) -> None:
        self._census = census

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("turns_waiting", "Turns that wait, in the whole database", labels=["waits_for"])
        oldest = GaugeMetricFamily("turns_waiting_oldest_seconds", "Age of the oldest of them", labels=["waits_for"])
        operations = GaugeMetricFamily("operations", "Operations that have not ended, in all", labels=["state"])
        age = GaugeMetricFamily("operations_oldest_seconds", "Age of the oldest of them", labels=["state"])
        memory = GaugeMetricFamily("redis_memory_bytes", "Memory that Redis uses")
        limit = GaugeMetricFamily("redis_memory_limit_bytes", "Redis' maxmemory; 0 if it has none")
        if (census := self._census()) is not None:
            for family, ages, groups in ((waiting, oldest, census.turns), (operations, age, census.operations)):
                for name, group in groups.items():
                    family.add_metric([name], group.number)
                    ages.add_metric([name], group.oldest)
            if census.redis is not None:
                memory.add_metric([], census.redis.used)
                limit.add_metric([], census.redis.limit)
        yield from (waiting, oldest, operations, age, memory, limit)


class _WebRequests(Collector):
    def __init__(self, outcomes: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._outcomes = outcomes

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("web_requests", "Calls of web_fetch and web_search", labels=["tool", "outcome"])
        for (tool, outcome), number in self._outcomes().items():
            family.add_metric([tool, outcome], number)
        yield family


class ExecutorMetrics(ProcessMetrics):
    def __init__(self) -> None:
        super().__init__()
        self.tool_servers: Callable[[], Sequence[ToolServer]] = tuple
        self.models = ModelMetrics(self.registry)
        self._running = Gauge("turns_running", "Turns that run in this executor", registry=self.registry)
        self._attempts = Counter(
            "turn_attempts", "Attempts that this executor began", ["reason"], registry=self.registry
        )
        self._ended = Counter("turns_ended", "Turns that this executor ended", ["status"], registry=self.registry)
        self._dead_letters = Counter(
            "turn_dead_letters", "Turns that the queue gave up on", ["reason"], registry=self.registry
        )
        self._waits = self._histogram(
            "turn_wait_seconds", "Seconds from the acceptance of a message to the first claim of its turn", _WAIT_S
        )
        self._first_chunk = self._histogram(
            "turn_first_chunk_seconds",
            "Seconds from the start of a turn's first attempt to the model's first chunk",
            _FIRST_CHUNK_S,
        )
        self._seconds = self._histogram(
            "turn_seconds", "Seconds from a turn's first claim to its end, over all attempts", _WHOLE_TURN_S
        )
        self._slots = Gauge("turn_slots", "Turns that may run in this executor at once", registry=self.registry)
        self._sweeps = Counter("sweeps", "Sweeps of this executor", ["result"], registry=self.registry)
        self._repairs = Counter("sweep_repairs", "Repairs of its sweeps", ["repair"], registry=self.registry)
        self._stream_bytes = Gauge(
            "stream_bytes",
            "Memory in Redis of the streams of the turns that run in this executor, when they were last refreshed",
            registry=self.registry,
        )

        self._webhooks = Counter(
            "webhook_attempts", "Attempts to deliver an event to a webhook", ["result"], registry=self.registry
        )
        self._platform_calls = Counter(
            "platform_calls", "Calls to the agent platform", ["call", "outcome"], registry=self.registry
        )
        self.sandbox_away: Callable[[], str | None] | None = None
        """Returns why the sandbox does not work. None if there is none."""
        self.platform_away: Callable[[], str | None] | None = None
        """Returns why the agent platform was not reached by the last call. None if there is no platform."""
        self._summaries = Counter(
            "summaries", "Attempts to summarise a long conversation", ["outcome"], registry=self.registry
        )

        for counter, values in (
            (self._attempts, ("first", "takeover", "again")),
            (self._ended, ("completed", "failed", "cancelled")),
            (self._dead_letters, (*_REASONS, "other")),
            (self._sweeps, ("swept", "other_executor", "unavailable")),
            (self._repairs, REPAIRS),
            (self._webhooks, ("delivered", "failed")),
            (self._summaries, ("made", "failed", "too_late", "cancelled", "lost", "skipped")),
        ):
            for value in values:  # from 0 on, because Prometheus sees no increase in a series that begins with 1
                counter.labels(value)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def watch_running(self, number: Callable[[], float]) -> None:
        """Registers `number`, which supplies `turns_running` at each scrape."""
        self._running.set_function(number)

    def note_slots(self, number: int) -> None:
        self._slots.set(number)

    def watch_tool_servers(self, servers: Callable[[], Sequence[ToolServer]], reasons: Iterable[str]) -> None:
        """Takes the states of MCP servers from `servers` at each scrape. `reasons` are those of their failures."""
        self.tool_servers = servers
        self.registry.register(_ToolServers(servers, reasons))

    def watch_web(self, outcomes: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Takes the numbers of calls, by tool and outcome, from `outcomes` at each scrape."""
        self.registry.register(_WebRequests(outcomes))

    def watch_census(self, census: Callable[[], Census | None]) -> None:
        """Takes the newest census from `census` at each scrape; None if another executor takes it."""
        self.registry.register(_Census(census))

    def count_attempt(self, claimed: Task) -> None:
        """Counts an attempt that begins. `claimed` is the task's row after the claim."""
        first = claimed.attempt == (FIRST_CONTINUATION if claimed.kind is TaskKind.OPERATION else 1)
        reason = "first" if first else "takeover" if claimed.crashes else "again"
        self._attempts.labels(reason).inc()
        if first and claimed.kind is TaskKind.TURN and claimed.started_at is not None:
            self._waits.observe((claimed.started_at - claimed.created_at).total_seconds())

    def count_first_chunk(self, seconds: float) -> None:
        self._first_chunk.observe(seconds)

    def count_end(self, task: Task) -> None:
        """Counts a turn that ended. `task` is its row after the end."""
        self._ended.labels(task.status.value).inc()
        if task.started_at is not None and task.finished_at is not None:
            self._seconds.observe((task.finished_at - task.started_at).total_seconds())

    def count_dead_letter(self, reason: str) -> None:
        self._dead_letters.labels(reason if reason in _REASONS else "other").inc()

    def count_sweep(self, result: str) -> None:
        """Counts a sweep: `swept`, `other_executor`, or `unavailable` if a store was."""
        self._sweeps.labels(result).inc()

    def count_repair(self, repair: str, number: int = 1) -> None:
        self._repairs.labels(repair).inc(number)

    def count_webhook_attempt(self, result: str) -> None:
        """Counts an attempt: `delivered` or `failed`."""
        self._webhooks.labels(result).inc()

    def watch_platform(self, why_away: Callable[[], str | None], calls: Iterable[str]) -> None:
        """Takes the reason why the agent platform was not reached from `why_away`, for the health report.

        `calls` are the names of the calls that are counted.
        """
        self.platform_away = why_away
        for call in calls:
            for outcome in ("ok", "tool_unavailable", "timeout"):
                self._platform_calls.labels(call, outcome)

    def count_platform_call(self, call: str, outcome: str) -> None:
        """Counts a call: `ok`, or the code of its failure."""
        self._platform_calls.labels(call, outcome).inc()

    def count_summary(self, outcome: str) -> None:
        """Counts an attempt: `made`, `failed`, `too_late`, `cancelled`, `lost` or `skipped`."""
        self._summaries.labels(outcome).inc()

    def note_stream_bytes(self, number: int) -> None:
        self._stream_bytes.set(number)
