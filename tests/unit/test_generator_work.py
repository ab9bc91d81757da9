"""Tests of the generator's work, which is resent as the same bytes, and of its settings."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.config import Settings, load_settings
from backend.errors import ConfigError
from backend.ids import OperationId, TaskId
from executor.generator import ErrorType, GeneratorFailure, Instructions, Work, open_generator
from executor.generator.work import GENERATE, MODIFY_TEMPLATE, UPDATE

OPERATION, TASK, CALLBACK = OperationId("op-1"), TaskId("task-1"), "http://localhost/complete"
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_TEXT, below),
)


def sent(work: Work) -> Any:
    return orjson.loads(work.for_operation(OPERATION, TASK, CALLBACK))


def test_each_kind_of_work_has_the_path_and_the_fields_of_the_contract() -> None:
    ids = {"operation_id": OPERATION, "task_id": TASK, "callback_url": CALLBACK}
    made = Work.generate(Instructions(({"action": "look"},)), [{"name": "Other"}])
    assert made.path == GENERATE == "/api/generate-agent"
    instructions = {"type": "instructions", "steps": [{"action": "look"}]}
    assert sent(made) == {"instructions": instructions, "library_agents": [{"name": "Other"}], **ids}
    changed = Work.update("More", {"id": "a"})
    assert changed.path == UPDATE == "/api/update-agent"
    assert sent(changed) == {"update_request": "More", "current_agent_json": {"id": "a"}, **ids}
    modified = Work.modify_template({"id": "t"}, "Mine", "in German")
    assert modified.path == MODIFY_TEMPLATE == "/api/template-modification"
    assert sent(modified) == {
        "template_agent_json": {"id": "t"}, "modification_request": "Mine", "context": "in German", **ids
    }  # fmt: skip


@given(agent=st.dictionaries(_TEXT, _JSON))
def test_stored_work_is_sent_as_the_same_bytes_whatever_the_store_does_to_keys(agent: Any) -> None:
    work = Work.update("change", agent)
    stored = json.loads(json.dumps(work.as_json(), sort_keys=True))
    again = Work.from_json(stored)
    assert again == work
    assert again.for_operation(OPERATION, TASK, CALLBACK) == work.for_operation(OPERATION, TASK, CALLBACK)


@pytest.mark.parametrize(
    "stored",
    [None, [], {}, {"path": GENERATE}, {"path": "/elsewhere", "body": "{}"}, {"path": GENERATE, "body": "[]"},
     {"path": GENERATE, "body": "no JSON"}, {"path": GENERATE, "body": {}}],
)  # fmt: skip
def test_stored_work_that_is_invalid_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Work.from_json(stored)


@pytest.mark.parametrize("text", ["\ud800", "half \udfff"])
def test_work_that_cannot_be_written_as_json_is_a_request_error(text: str) -> None:
    with pytest.raises(GeneratorFailure) as caught:
        Work.update(text, {})
    assert caught.value.error_type is ErrorType.REQUEST_ERROR


def settings(**given: Any) -> Settings:
    return Settings(**given)


async def test_without_a_host_setting_there_is_no_generator() -> None:
    async with open_generator(settings()) as generator:
        assert generator is None


@pytest.mark.parametrize("host", ["generator", "gen.internal", "my_generator", "10.0.0.1", "::1", "[::1]"])
async def test_the_host_setting_is_a_name_or_an_address(host: str) -> None:
    async with open_generator(settings(agentgenerator_host=host)) as generator:
        assert generator is not None


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("AGENTGENERATOR_HOST", {"agentgenerator_host": "http://generator"}),
        ("AGENTGENERATOR_HOST", {"agentgenerator_host": "generator/api"}),
        ("AGENTGENERATOR_HOST", {"agentgenerator_host": "generator:8000"}),
        ("AGENTGENERATOR_HOST", {"agentgenerator_host": "me@generator"}),
        ("AGENTGENERATOR_PORT", {"agentgenerator_host": "generator", "agentgenerator_port": 70_000}),
        ("PLATFORM_BASE_URL", {"agentgenerator_host": "generator", "platform_base_url": "copilot"}),
        ("PLATFORM_BASE_URL", {"agentgenerator_host": "generator", "platform_base_url": "http://copilot/?a=b"}),
    ],
)
async def test_an_invalid_setting_is_named_at_the_start(named: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=named):
        async with open_generator(load_settings(files=(), **wrong)):
            pass


async def test_the_callback_url_is_built_from_the_base_url_of_the_platform() -> None:
    given = settings(agentgenerator_host="generator", platform_base_url="https://chat.example/base/")
    async with open_generator(given) as generator:
        assert generator is not None
        assert generator.callback_url(OPERATION) == "https://chat.example/base/api/chat/operations/op-1/complete"
