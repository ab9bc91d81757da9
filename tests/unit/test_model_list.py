"""CHAT_MODELS: the list of models, its faults, and the one model of the other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from backend.chat.models import Usage
from backend.config import Settings, load_settings, unknown_settings, variables_of_models
from backend.errors import ConfigError
from backend.model_list import MAX_FILE_BYTES, MAX_MODELS, ModelList
from executor.llm.model import Model
from executor.llm.models import Models, OpenModel

ONE: dict[str, Any] = {"id": "one", "model": "m"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def models(*entries: Any, **settings: Any) -> ModelList:
    return load_settings(chat_models=json.dumps(entries), **settings).models


def faults(*entries: Any, **settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        models(*entries, **settings)
    return str(raised.value).splitlines()


def test_a_list_is_read_from_the_setting_and_from_a_file(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([ONE, {"id": "two", "label": "The second", "model": "n", "default": True}])
    (nothing_set / "models.json").write_text(text)
    for setting in (text, f"\n {text}", "models.json", str(nothing_set / "models.json")):
        monkeypatch.setenv("CHAT_MODELS", setting)
        known = load_settings().models
        assert [entry.id for entry in known.entries] == ["one", "two"]
        assert (known.default.id, known.default.shown, known.entries[0].shown) == ("two", "The second", "one")


def test_the_first_model_is_the_default_unless_another_says_so() -> None:
    assert models(ONE, {**ONE, "id": "two"}).default.id == "one"
    assert models({**ONE, "hidden": True}, {**ONE, "id": "two"}).default.id == "two"


def test_the_settings_of_one_model_are_a_list_of_one() -> None:
    known = load_settings(chat_model="gpt-x", chat_api_key="k", chat_title_model="small").models
    assert [(entry.id, entry.shown, entry.model) for entry in known.entries] == [("default", "gpt-x", "gpt-x")]
    assert known.title is not None
    assert (known.title.model, known.listed, load_settings().models.default.shown) == ("small", False, "scripted")
    summary = load_settings(chat_summary_model="tiny").models.summary
    assert summary is not None
    assert summary.model == "tiny"


def test_the_name_of_the_default_at_v1_is_the_id_of_no_other_model() -> None:
    named = {**ONE, "id": "copilot"}
    assert models(named, ONE).default.id == models(ONE, {**named, "default": True}).default.id == "copilot"
    told = ["CHAT_MODELS: id: copilot is the name of the default model at /v1; no other model may have it"]
    assert (
        faults(ONE, named) == faults(named, {**ONE, "default": True}) == faults({**named, "hidden": True}, ONE) == told
    )


def test_a_hidden_model_cannot_be_chosen_and_may_name_sessions_and_summarise() -> None:
    known = models(ONE, {**ONE, "id": "small", "hidden": True}, chat_title_model="small", chat_summary_model="small")
    assert known.find("small") is None
    assert known.title is known.summary is known.entries[1]
    assert models(ONE).summary is None


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"id": "one"}, "model 1 (one): model: is missing"),
        ({"model": "m"}, "model 1: id: Field required"),
        ({**ONE, "id": "a b"}, "model 1 (a b): id: String should match pattern"),
        ({**ONE, "pric": 1}, "model 1 (one): pric: Extra inputs are not permitted"),
        ({**ONE, "provider": "oracle"}, "model 1 (one): provider: Input should be"),
        ({**ONE, "base_url": "nonsense"}, "model 1 (one): base_url: must begin with http:// or https://"),
        ({**ONE, "context_tokens": "many"}, "model 1 (one): context_tokens: Input should be a valid integer"),
        ({**ONE, "price": {"input": -1, "output": 1}}, "model 1 (one): price.input: Input should be greater"),
        ({**ONE, "price": {"input": 1}}, "model 1 (one): price.output: Field required"),
        ({**ONE, "price": {"input": 1, "output": 1, "currency": "dollars"}}, "model 1 (one): price.currency: "),
        ({**ONE, "effort": "high"}, "model 1 (one): effort: is not one of efforts"),
        ({**ONE, "efforts": {"low": {"messages": []}}}, "model 1 (one): efforts.low: messages cannot be changed"),
        ({**ONE, "body": {"model": "x"}}, "model 1 (one): body: model cannot be changed"),
        ({**ONE, "omit": ["stream"]}, "model 1 (one): omit: stream cannot be changed"),
        ({**ONE, "provider": "anthropic", "omit": ["max_tokens"]}, "model 1 (one): omit: max_tokens is required"),
        ({**ONE, "headers": {"a b": "c"}}, "model 1 (one): headers.a b: not a valid header"),
        ({**ONE, "headers": {"x-key": "sec\nret"}}, "model 1 (one): headers.x-key: not a valid header"),
        ({**ONE, "default": True, "hidden": True}, "model 1 (one): default: a hidden model cannot be the default"),
        ({**ONE, "hidden": True}, "hidden: every model is hidden"),
        ({**ONE, "fallback": "one"}, "model one: fallback: is not the id of another model"),
        ({**ONE, "fallback": "two"}, "model one: fallback: is not the id of another model"),
        (3, "model 1: Input should be a valid dictionary"),
    ],
)
def test_a_fault_is_told_with_its_place(entry: Any, fault: str) -> None:
    told = faults(entry)
    assert len(told) == 1
    assert told[0].startswith(f"CHAT_MODELS: {fault}")


def test_each_fault_has_a_line_and_no_line_has_a_key() -> None:
    told = faults({**ONE, "key": ["sk-secret"], "pric": 1}, {"id": "two"})
    assert [line.split(": ")[1] for line in told] == ["model 1 (one)", "model 1 (one)", "model 2 (two)"]
    assert "sk-secret" not in "".join(told)
    broken, other = {**ONE, "pric": 1}, {**ONE, "id": "two", "fallback": "one"}
    assert len(faults(broken, other)) == 1, "the fallback is there, and its entry is broken"
    at_once = faults(broken, {**other, "fallback": "three"}, {**ONE, "id": "two"}, chat_title_model="gone")
    assert len(at_once) == 4, "those of entries and those between them"
    assert len(faults(ONE, ONE, {**ONE, "default": True}, {**ONE, "id": "x", "default": True})) == 2
    assert faults(ONE, chat_title_model="gone") == [
        "CHAT_MODELS: CHAT_TITLE_MODEL is not the id of a model in the list"
    ]
    assert faults(ONE, chat_summary_model="gone") == [
        "CHAT_MODELS: CHAT_SUMMARY_MODEL is not the id of a model in the list"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chat_provider", "openai"),
        ("chat_model", "m"),
        ("chat_api_key", "sk-secret"),
        ("chat_base_url", "http://x"),
        ("openrouter_base_url", "http://x"),
        ("openai_base_url", "http://x"),
    ],
)
def test_the_settings_of_one_model_do_not_stand_beside_a_list(name: str, value: str) -> None:
    assert faults(ONE, **{name: value}) == [f"{name.upper()}: has no effect beside CHAT_MODELS; put it into the list"]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("[]", "must be a list of 1 to 64 models"),
        (json.dumps([ONE] * (MAX_MODELS + 1)), "must be a list of 1 to 64 models"),
        ('[{"id": "a",\n "model" 1}]', "line 2, column 10: not valid JSON"),
        ('[{"id": "a", "id": "b"}]', "'id' appears twice in one object"),
        ("[" * 100_000, "nested too deeply"),
        ("none.json", "the file cannot be read: No such file or directory"),
        (".", "the file cannot be read: Is a directory"),
        ("latin.json", "the file cannot be read: not a file of text in UTF-8"),
        ("large.json", f"large.json has more than {MAX_FILE_BYTES} bytes"),
        ("object.json", "must be a list of 1 to 64 models"),
    ],
)
def test_a_list_that_cannot_be_read_is_told(nothing_set: Path, setting: str, fault: str) -> None:
    (nothing_set / "latin.json").write_bytes(b'[{"id": "\xe9"}]')
    (nothing_set / "large.json").write_bytes(b" " * (MAX_FILE_BYTES + 1))
    (nothing_set / "object.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"^CHAT_MODELS: {fault}$"):
        load_settings(chat_models=setting)


def test_the_variables_of_keys_may_stand_in_env(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = models({**ONE, "key": "${MY_KEY}", "headers": {"x-team": "a ${TEAM} b ${OTHER}"}})
    (nothing_set / ".env").write_text("MY_KEY=one\nTEAM=two\nFROBNICATE=1\n")
    monkeypatch.setenv("TEAM", "three")
    assert known.variables == {"MY_KEY", "TEAM", "OTHER"}
    assert variables_of_models(known.variables) == {"MY_KEY": "one", "TEAM": "three"}
    assert unknown_settings(used=known.variables) == ["FROBNICATE"]


def test_the_key_of_one_model_may_be_a_variable_of_the_list() -> None:
    assert models({**ONE, "key": "${CHAT_API_KEY}"}, chat_api_key="sk-secret").variables == {"CHAT_API_KEY"}


def test_a_list_needs_no_key_to_be_read_and_does_not_show_one() -> None:
    settings = load_settings(chat_models=json.dumps([{**ONE, "key": "sk-secret", "headers": {"x": "sk-secret"}}]))
    assert "sk-secret" not in repr(settings) + repr(settings.models)


def test_an_answer_that_was_stopped_before_any_tokens_were_told_has_no_cost() -> None:
    listed = models({**ONE, "price": {"input": 1, "output": 2}})
    opened = OpenModel(listed.default, cast(Model, None), 1, 1, "", "one")
    priced = Models(listed, {}, None, None).priced
    assert priced(opened, Usage()) == Usage(model="one")
    assert priced(opened, Usage(1_000_000)).cost == {"USD": 1.0}
