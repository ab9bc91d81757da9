"""Settings: .env.default lists them all, later sources win, and a wrong one is said in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.config import (
    SAMPLE_SECRETS,
    Settings,
    chosen_settings,
    load_settings,
    misspelt_variables,
    unknown_settings,
    warn_of_unknown_settings,
)
from backend.errors import ConfigError
from tests import ROOT

LISTED = [line for line in (ROOT / ".env.default").read_text().splitlines() if line and not line.startswith("#")]
LINE = re.compile(r"(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S*)\s+# (?P<comment>.{3,})")
SECRET = "5d3f0a9c7b1e4d2f8a6c5d3f0a9c7b1e"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without settings, and an environment without any; returns the folder."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value is None else re.sub(r"\.0$", "", str(value))


def test_every_setting_stands_in_env_default_with_its_default_and_a_comment() -> None:
    lines = [LINE.fullmatch(line) for line in LISTED]
    assert all(lines), [line for line in LISTED if not LINE.fullmatch(line)]
    listed = {line["name"]: line["value"] for line in lines if line}
    assert len(listed) == len(LISTED)
    defaults = {name.upper(): as_text(field.default) for name, field in Settings.model_fields.items()}
    assert listed == defaults


def test_env_default_itself_changes_nothing(nothing_set: Path) -> None:
    without = load_settings()
    (nothing_set / ".env.default").write_text((ROOT / ".env.default").read_text())
    assert load_settings() == without


def test_the_environment_wins_over_env_and_env_over_env_default(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nothing_set / ".env.default").write_text("PORT=1001\nMAX_STEPS=1001\nCHAT_MODEL=one # a comment\n")
    (nothing_set / ".env").write_text("PORT=1002\nMAX_STEPS=1002\n")
    monkeypatch.setenv("PORT", "1003")
    settings = load_settings()
    assert (settings.port, settings.max_steps, settings.chat_model) == (1003, 1002, "one")


def test_an_empty_value_means_not_set(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing_set / ".env").write_text("DB_HOST=db.internal\n")
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load_settings()
    assert settings.port == 8006
    assert settings.database_dsn == "postgresql://postgres@db.internal:5432/copilot?schema=public"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "many"),
        ("PORT", "70000"),
        ("QUEUE", "kafka"),
        ("AUTH_MODE", "sometimes"),
        ("JWT_ALGORITHM", "none"),
        ("CHAT_PROVIDER", "oracle"),
        ("CLAUDE_ENGINE_TURNS", "0"),
        ("EXECUTOR_CONCURRENCY", "0"),
        ("TURN_TIMEOUT", "-1"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"^{name}: [^\n]+$"):
        load_settings()


def test_all_wrong_settings_are_named_at_once_each_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "PORT": "many",
        "QUEUE": "kafka",
        "DB_HOST": "db:80",
        "METRICS_KEY": "secret",
        "CHAT_WEBHOOK_SECRET": "short",
        "REDIS_HOST": "elsewhere",
        "REDIS_PASSWORD": "changeme",
        "JWT_JWKS_URL": "nonsense",
        "AUTH_MODE": "required",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    named = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    fields, others = (
        ["DB_HOST", "JWT_JWKS_URL", "PORT", "QUEUE"],
        ["CHAT_WEBHOOK_SECRET", "METRICS_KEY", "REDIS_PASSWORD"],
    )
    assert sorted(named) == sorted(fields + others)


WRONG = [
    (
        "PLATFORM_BASE_URL JWT_JWKS_URL CHAT_BASE_URL OPENROUTER_BASE_URL OPENAI_BASE_URL",
        ["nonsense", "ftp://host", "http://", "//host", "http://ho st", "http://host:0", "http://h:x", "http://300.1.1.1"],
    ),
    (
        "HOST DB_HOST REDIS_HOST RABBITMQ_HOST AGENTGENERATOR_HOST",
        ["300.1.1.1", "1.2.3", "http://host", "host:80", "ho st", "a,b c", "-", "host/path", "::g", "0x7f.1"],
    ),
    ("FRONTEND_BASE_URL", ["*", "https://*.a.example", "a.example", "https://a.example,*", "https://", "a://b c"]),
    ("ALLOWED_HOSTS", ["https://host", "host:80", "a b", "*.", "**", "*.*"]),
    ("DB_PORT REDIS_PORT RABBITMQ_PORT AGENTGENERATOR_PORT", ["0", "-1", "65536", "x"]),
    (
        "TURN_TIMEOUT TOOL_TIMEOUT OPERATION_TIMEOUT AGENTGENERATOR_TIMEOUT SHUTDOWN_GRACE",
        ["inf", "nan", "-1", "1e12", "x"],
    ),
    (
        "MAX_MESSAGE_CHARS MAX_BODY_BYTES MAX_CHAT_BODY_BYTES MAX_BODY_MEMORY MAX_RUNNING_TURNS MAX_STEPS"
        " MAX_OPEN_STREAMS MAX_NEW_SESSIONS MAX_AGENTS MAX_TURN_TOKENS"
        " MAX_CRASHES CHAT_CONTEXT_TOKENS CHAT_MAX_OUTPUT_TOKENS",
        ["0", "-1", "1.5", "many"],
    ),
]  # fmt: skip
CASES = [(name, value) for names, values in WRONG for name in names.split() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_value_that_cannot_work_is_rejected_with_its_name_and_not_quoted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("JWT_ALGORITHM", "RS256")
    with pytest.raises(ConfigError, match=rf"^{name}: [^\n]+$") as refused:
        load_settings()
    assert len(value) < 9 or value not in str(refused.value)


def test_every_number_has_bounds_on_both_sides() -> None:
    unbounded = []
    for name, field in Settings.model_fields.items():
        kinds = {type(rule).__name__ for rule in field.metadata}
        if field.annotation in (int, float) and not ("Le" in kinds and kinds & {"Ge", "Gt"}):
            unbounded.append(name)
    assert unbounded == []


RIGHT = {
    "HOST": ["0.0.0.0", "::", "::1", "localhost", "my-machine.lan"],
    "RABBITMQ_HOST": ["rabbit_1", "a,b"],
    "DB_HOST": ["a,b", "/run/postgresql", "db_1", "10.0.0.1", "[::1]", "db.internal."],
    "FRONTEND_BASE_URL": ["https://a.example/, http://localhost:5173", "capacitor://localhost", "http://[::1]:80"],
    "ALLOWED_HOSTS": ["*", "*.app.github.dev, my-machine.lan", "192.168.1.5", "[::1]"],
    "JWT_JWKS_URL": ["https://issuer.example/.well-known/jwks.json", "http://127.0.0.1:1/keys?x=1"],
    "DATABASE_URL": ["postgresql://u:p@h1:5432,h2:5432/db", "postgresql:///db?host=/tmp"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_every_usual_form_of_a_value_is_accepted(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("JWT_ALGORITHM", "RS256")
    monkeypatch.setenv("RABBITMQ_DEFAULT_PASS", SECRET)
    load_settings()


@pytest.mark.parametrize("name", ["JWT_VERIFY_KEY", "CHAT_INTERNAL_API_KEY", "CHAT_WEBHOOK_SECRET", "METRICS_KEY"])
@pytest.mark.parametrize("value", [*sorted(SAMPLE_SECRETS), "ChangeMe", "too-short"])
def test_sample_and_short_secrets_are_refused_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: a sample or too short") as refused:
        load_settings()
    assert f" {value} " not in f" {refused.value} "


def test_the_secret_of_hs256_has_32_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_VERIFY_KEY", SECRET[:31])
    with pytest.raises(ConfigError, match=r"^JWT_VERIFY_KEY: .*32 characters"):
        load_settings()
    monkeypatch.setenv("JWT_VERIFY_KEY", SECRET)
    load_settings()


def test_a_line_of_env_that_cannot_be_read_is_named(nothing_set: Path) -> None:
    (nothing_set / ".env").write_text("PORT=1002\nMAX STEPS 3\n")
    with pytest.raises(ConfigError, match=r"^\.env, line 2: [^\n]+$"):
        load_settings()


def test_an_unknown_setting_in_env_is_reported(nothing_set: Path) -> None:
    assert unknown_settings() == []
    lines = "CHAT_PROVIDR=openai\nport=1\nCOMPOSE_PROJECT_NAME=x\nPUBLISHED_PORT=1\nFROBNICATE=1\n"
    (nothing_set / ".env").write_text(lines)
    assert unknown_settings() == ["CHAT_PROVIDR (do you mean CHAT_PROVIDER?)", "FROBNICATE"]


def test_a_misspelt_variable_of_the_environment_is_reported_with_the_nearest_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    misspelt = {
        "CHAT_PROVIDRE": "CHAT_PROVIDER",
        "DB_PASSWORD": "DB_PASS",
        "LOGLEVEL": "LOG_LEVEL",
        "OPENROUTER_API_KEY": "OPEN_ROUTER_API_KEY",
    }
    of_others = [
        "OTEL_EXPORTER_OTLP_ENDPOINTS",
        "RABBITMQ_SERVICE_PORT",
        "REDIS_PORT_6379_TCP",
        "HOSTNAME",
        "OPENAI_ORG_ID",
    ]
    for name in (*misspelt, *of_others, "PORT"):
        monkeypatch.setenv(name, "8006")
    told = [f"{name} (do you mean {setting}?)" for name, setting in misspelt.items()]
    assert misspelt_variables() == told
    warn_of_unknown_settings(load_settings())
    assert [record.__dict__["names"] for record in caplog.records] == [", ".join(told)]


def test_each_of_several_service_keys_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_INTERNAL_API_KEY", f"{SECRET},changeme")
    with pytest.raises(ConfigError, match=r"^CHAT_INTERNAL_API_KEY: "):
        load_settings()


@pytest.mark.parametrize(
    ("host", "password"),
    [("DB_HOST", "DB_PASS"), ("REDIS_HOST", "REDIS_PASSWORD"), ("RABBITMQ_HOST", "RABBITMQ_DEFAULT_PASS")],
)
def test_sample_passwords_are_refused_for_servers_elsewhere(
    host: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(password, "changeme")
    monkeypatch.setenv(host, "localhost")
    load_settings()
    monkeypatch.setenv(host, "db.internal")
    with pytest.raises(ConfigError, match=f"^{password}: a sample password"):
        load_settings()


def test_the_guest_of_rabbitmq_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_HOST", "rabbitmq")
    with pytest.raises(ConfigError, match=r"^RABBITMQ_DEFAULT_PASS: "):
        load_settings()


def test_required_users_need_a_key_to_verify_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_MODE", "required")
    with pytest.raises(ConfigError, match=r"^JWT_VERIFY_KEY or JWT_JWKS_URL: "):
        load_settings()
    monkeypatch.setenv("JWT_VERIFY_KEY", SECRET)
    assert load_settings().auth_mode == "required"


@pytest.mark.parametrize(
    ("dsn", "name"), [("database_dsn", "DATABASE_URL"), ("redis_dsn", "REDIS_URL"), ("rabbitmq_dsn", "RABBITMQ_URL")]
)
def test_a_store_that_is_not_set_is_named(dsn: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        getattr(load_settings(), dsn)


def test_passwords_with_special_signs_reach_the_url_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DB_HOST", "REDIS_HOST", "RABBITMQ_HOST"):
        monkeypatch.setenv(name, "host")
    for name in ("DB_PASS", "REDIS_PASSWORD", "RABBITMQ_DEFAULT_PASS"):
        monkeypatch.setenv(name, "a/b@c:d#e")
    settings = load_settings()
    quoted = "a%2Fb%40c%3Ad%23e"
    assert settings.database_dsn == f"postgresql://postgres:{quoted}@host:5432/copilot?schema=public"
    assert settings.redis_dsn == f"redis://:{quoted}@host:6379/0"
    assert settings.rabbitmq_dsn == f"amqp://guest:{quoted}@host:5672/"


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://postgres:{SECRET}@host/copilot")
    monkeypatch.setenv("CHAT_API_KEY", SECRET)
    assert SECRET not in repr(load_settings())


def test_what_somebody_chose_is_told_apart_from_the_defaults_even_if_it_is_valid_only_with_them(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nothing_set / ".env.default").write_text("JWT_ALGORITHM=RS256\nHOST=::1\n")
    (nothing_set / ".env").write_text("JWT_JWKS_URL=https://example.com/keys\nPORT=\n")
    monkeypatch.setenv("LOG_FORMAT", "json")
    assert load_settings().jwt_algorithm == "RS256"
    assert chosen_settings() == {"jwt_jwks_url", "log_format"}


@pytest.mark.parametrize(
    ("given", "provider"),
    [
        ({}, "scripted"),
        ({"CHAT_BASE_URL": "http://127.0.0.1:11434/v1", "CHAT_MODEL": "qwen3"}, "openai"),
        ({"CHAT_BASE_URL": "http://127.0.0.1:11434/v1"}, "openai"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "CHAT_MODEL": "qwen3"}, "openai"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, "scripted"),
        ({"CHAT_MODEL": "qwen3"}, "scripted"),
        ({"CHAT_BASE_URL": "http://127.0.0.1:4000", "ANTHROPIC_API_KEY": SECRET}, "anthropic"),
        ({"CHAT_BASE_URL": "http://127.0.0.1:4000", "CHAT_PROVIDER": "anthropic"}, "anthropic"),
        ({"CHAT_BASE_URL": "http://127.0.0.1:4000", "CHAT_API_KEY": SECRET}, "openai"),
    ],
)
def test_a_key_or_a_base_url_chooses_the_provider(
    given: dict[str, str], provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert load_settings().provider == provider
