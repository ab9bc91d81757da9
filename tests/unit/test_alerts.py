"""The alerts and the dashboard against the metrics and the runbook."""

from __future__ import annotations

import json

from tests.alert_rules import alerts, metrics_in
from tests.every_metric import sample_names, samples_at_the_start
from tests.unit.test_docs import ROOT, anchors_of

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
_OF_PROCESSES = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def test_each_alert_names_a_section_of_the_runbook_and_the_reason_for_its_limit() -> None:
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors_of(ROOT / page), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["threshold"], name
        assert rule["labels"]["severity"] in {"critical", "warning"}, name


def test_alerts_ask_only_for_metrics_that_exist() -> None:
    for name, rule in alerts().items():
        assert metrics_in(rule["expr"]), name
        assert metrics_in(rule["expr"]) <= sample_names() | _OF_PROCESSES, name


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_counter_whose_increase_is_asked_for_begins_at_0() -> None:
    """Prometheus sees no increase in a series that begins with its first event."""
    expressions = [*(rule["expr"] for rule in alerts().values()), *dashboard_expressions()]
    counters = {name for expression in expressions for name in metrics_in(expression) if name.endswith("_total")}
    assert len(counters) > 9
    assert counters <= samples_at_the_start()


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    asked = {name for expression in dashboard_expressions() for name in metrics_in(expression)}
    known = sample_names()
    assert asked <= known | _OF_PROCESSES
    assert {name for name in known if not name.endswith(("_count", "_sum"))} <= asked


def test_the_names_in_expressions_are_found() -> None:
    found = metrics_in('sum by (a) (rate(x_total{status=~"b|c"}[5m])) and abs(y) > 0.5 * max(z)')
    assert found == {"x_total", "y", "z"}
