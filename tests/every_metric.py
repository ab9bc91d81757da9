"""Every metric that the product exports, for tests that compare pages, alerts and dashboards with the code."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from backend.api.metrics import ApiMetrics
from backend.chat.store.operators.census import Census, RedisMemory, TaskGroup
from executor.metrics import ExecutorMetrics, ToolServer


def every_metric() -> set[tuple[str, str, tuple[str, ...]]]:
    """Returns name, type and sorted labels of each. Those of the Prometheus client are one: `process_`."""
    found = set()
    for metrics in _of_new_processes():
        wrappers = metrics.registry._collector_to_names
        labels = {wrapper._name: wrapper._labelnames for wrapper in wrappers if isinstance(wrapper, MetricWrapperBase)}
        for family in metrics.registry.collect():
            found.add((family.name, family.type, tuple(sorted(labels.get(family.name, _labels_of(family))))))
    return {("process_", "", ()) if name.startswith("process_") else (name, kind, own) for name, kind, own in found}


def samples_at_the_start() -> set[str]:
    """Returns the names of the samples that new processes export before anything has happened."""
    families = (family for metrics in _of_new_processes() for family in metrics.registry.collect())
    return {sample.name for family in families for sample in family.samples}


def _of_new_processes() -> tuple[ApiMetrics, ExecutorMetrics]:
    """Returns the metrics of an API with one route, and of an executor with a model, an MCP server and a platform."""
    api, executor = ApiMetrics(), ExecutorMetrics()
    api.expect("GET", "/")
    executor.models.expect("one", ["provider_error"])
    executor.watch_tool_servers(lambda: [ToolServer("one", connected=True, tools=1)], ["exited"])
    executor.watch_platform(lambda: None, ["execute"])
    executor.watch_web(lambda: {("web_fetch", "completed"): 0})
    executor.watch_census(lambda: Census({"turn": TaskGroup()}, {"pending": TaskGroup()}, RedisMemory(1, 2)))
    return api, executor


def sample_names() -> set[str]:
    """Returns the names under which Prometheus stores the metrics."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {name + ending for name, kind, _ in every_metric() for ending in endings.get(kind, ())}


def _labels_of(family: Metric) -> tuple[str, ...]:
    return tuple(family.samples[0].labels) if family.samples else ()
