"""The rules of the alerts, by promtool: each fires in its trouble, and none in a healthy system."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alert_rules import RULES, alerts
from tests.servers.prometheus import required
from tests.speed import limit

_API, _EXECUTOR = 'job="copilot-api",instance="a"', 'job="copilot-executor",instance="e"'
_CALM = {
    f"up{{{_API}}}": "1+0x60",
    f"up{{{_EXECUTOR}}}": "1+0x60",
    f"turns_running{{{_EXECUTOR}}}": "3+0x60",
    f"turn_slots{{{_EXECUTOR}}}": "64+0x60",
    f'readiness_check{{{_API},check="redis"}}': "1+0x60",
    f'turns_waiting_oldest_seconds{{{_EXECUTOR},waits_for="executor"}}': "2+0x60",
    f'sweeps_total{{{_EXECUTOR},result="swept"}}': "0+30x60",
    f'turn_first_chunk_seconds_bucket{{{_EXECUTOR},le="1"}}': "0+30x60",
    f'turn_first_chunk_seconds_bucket{{{_EXECUTOR},le="30"}}': "0+30x60",
    f'turn_first_chunk_seconds_bucket{{{_EXECUTOR},le="+Inf"}}': "0+30x60",
    f'chunk_append_seconds_bucket{{{_EXECUTOR},le="0.1"}}': "0+30x60",
    f'chunk_append_seconds_bucket{{{_EXECUTOR},le="2.5"}}': "0+30x60",
    f'chunk_append_seconds_bucket{{{_EXECUTOR},le="+Inf"}}': "0+30x60",
    f'db_pool_wait_seconds_bucket{{{_API},le="0.01"}}': "0+30x60",
    f'db_pool_wait_seconds_bucket{{{_API},le="2.5"}}': "0+30x60",
    f'db_pool_wait_seconds_bucket{{{_API},le="+Inf"}}': "0+30x60",
    f'turns_ended_total{{{_EXECUTOR},status="completed"}}': "0+30x60",
    f'turns_ended_total{{{_EXECUTOR},status="failed"}}': "0+0x60",
    f'model_calls_total{{{_EXECUTOR},model="m",outcome="completed"}}': "0+30x60",
    f'model_calls_total{{{_EXECUTOR},model="m",outcome="abandoned"}}': "0+30x60",
    f'turn_attempts_total{{{_EXECUTOR},reason="first"}}': "0+30x60",
    f'turn_attempts_total{{{_EXECUTOR},reason="takeover"}}': "0+0x60",
    f'turn_dead_letters_total{{{_EXECUTOR},reason="other"}}': "0+0x60",
    f'completion_dead_letters_total{{{_API},reason="other"}}': "0+0x60",
    f'sweep_repairs_total{{{_EXECUTOR},repair="operation_expired"}}': "0+0x60",
    f'http_requests_total{{{_API},status="200"}}': "0+600x60",
    f"redis_memory_bytes{{{_EXECUTOR}}}": "70+0x60",
    f"redis_memory_limit_bytes{{{_EXECUTOR}}}": "100+0x60",
    f'clock_skew_seconds{{{_EXECUTOR},store="postgres"}}': "0.1+0x60",
    f'mcp_server_up{{{_EXECUTOR},server="s"}}': "1+0x60",
}
"""The values of a healthy system, one a minute."""
_TROUBLES: dict[str, dict[str, str]] = {
    "CopilotProcessDown": {f"up{{{_API}}}": "0+0x60"},
    "CopilotNoExecutor": {f"turns_running{{{_EXECUTOR}}}": "_x60", f"turn_slots{{{_EXECUTOR}}}": "_x60"},
    "CopilotCheckFails": {f'readiness_check{{{_API},check="redis"}}': "0+0x60"},
    "CopilotTurnsWait": {f'turns_waiting_oldest_seconds{{{_EXECUTOR},waits_for="executor"}}': "0+60x60"},
    "CopilotNobodySweeps": {f'sweeps_total{{{_EXECUTOR},result="swept"}}': "9+0x60"},
    "CopilotExecutorsFull": {f"turns_running{{{_EXECUTOR}}}": "64+0x60"},
    "CopilotSlowFirstChunk": {f'turn_first_chunk_seconds_bucket{{{_EXECUTOR},le="1"}}': "0+0x60"},
    "CopilotSlowAppends": {f'chunk_append_seconds_bucket{{{_EXECUTOR},le="0.1"}}': "0+0x60"},
    "CopilotPoolWaits": {f'db_pool_wait_seconds_bucket{{{_API},le="0.01"}}': "0+0x60"},
    "CopilotTurnsFail": {f'turns_ended_total{{{_EXECUTOR},status="failed"}}': "0+1x60"},
    "CopilotProviderFails": {f'model_calls_total{{{_EXECUTOR},model="m",outcome="overloaded"}}': "0+5x60"},
    "CopilotTakeovers": {f'turn_attempts_total{{{_EXECUTOR},reason="takeover"}}': "0+1x60"},
    "CopilotDeadLetters": {f'turn_dead_letters_total{{{_EXECUTOR},reason="other"}}': "0+0x25 1+0x30"},
    "CopilotDeadCompletions": {f'completion_dead_letters_total{{{_API},reason="other"}}': "0+0x25 1+0x30"},
    "CopilotOperationsExpire": {f'sweep_repairs_total{{{_EXECUTOR},repair="operation_expired"}}': "0+0x25 1+0x30"},
    "CopilotRequestsFail": {f'http_requests_total{{{_API},status="503"}}': "0+60x60"},
    "CopilotRedisFills": {f"redis_memory_bytes{{{_EXECUTOR}}}": "90+0x60"},
    "CopilotClockSkew": {f'clock_skew_seconds{{{_EXECUTOR},store="postgres"}}': "-7+0x60"},
    "CopilotMcpServerDown": {f'mcp_server_up{{{_EXECUTOR},server="s"}}': "0+0x60"},
}
"""What differs from that when an alert must fire."""


def test_every_alert_has_a_trouble_that_makes_it_fire() -> None:
    assert alerts().keys() == _TROUBLES.keys()


@pytest.mark.parametrize("tool", ["check", "test"])
def test_promtool_accepts_the_alerts_and_each_fires_in_its_trouble_alone(tool: str, tmp_path: Path) -> None:
    promtool = required() / "promtool"
    if tool == "check":
        command = [promtool, "check", "rules", RULES]
    else:
        cases = [_case(None), *(_case(name) for name in _TROUBLES)]
        file = tmp_path / "tests.yml"
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))
        command = [promtool, "test", "rules", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit(60))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _case(trouble: str | None) -> dict[str, Any]:
    """Returns a test for promtool: after 30 minutes the alert of this trouble fires, and no other."""
    series = _CALM if trouble is None else _CALM | _TROUBLES[trouble]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "30m",
                "exp_samples": [] if trouble is None else [{"labels": f'{{alertname="{trouble}"}}', "value": 1}],
            }
        ],
    }
