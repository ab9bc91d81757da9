"""What a process does not import before it needs it: a start has to stay short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.speed import limit

ROOT = Path(__file__).parents[2]
NEITHER = {
    "aio_pika",  # only with QUEUE=rabbitmq
    "anthropic",
    "backend.embedded",  # only `up` starts servers, and few turns run apart
    "dotenv",  # only where there is a file of settings
    "httpx2",  # for a JWKS URL, a generator, a provider
    "mcp",
    "openai",
    "pydantic_settings",
    "typer",
}
# of the API: outcomes of operations come later, and tokens can be verified only with a key
NOT_THE_API = NEITHER | {"backend.chat.results", "backend.chat.tool_responses", "executor", "jwt"}
NOT_THE_EXECUTOR = NEITHER | {"anyio", "fastapi", "jwt", "starlette"}
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "DATABASE_URL": "postgresql://127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "QUEUE": "redis",
    "CHAT_PROVIDER": "scripted",
}


APP = """
from backend.api.app import create_app
from backend.config import load_settings
create_app(load_settings())
"""


def imported(folder: Path, *program: str, code: int = 1, **settings: str) -> set[str]:
    """Runs a program that ends by itself with that exit code. Returns the modules that it has imported by then."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *program],
        cwd=folder, env=ENVIRONMENT | settings, stderr=subprocess.PIPE, text=True, timeout=limit(60), check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr[-2_000:]
    lines = ran.stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("program", "unneeded", "needed"),
    [
        (("backend", "serve"), NOT_THE_API, "backend.api.server"),
        (("executor",), NOT_THE_EXECUTOR, "executor.worker"),
    ],
)
def test_a_process_gets_to_its_database_without_what_no_setting_names(
    program: tuple[str, ...], unneeded: set[str], needed: str, tmp_path: Path
) -> None:
    modules = imported(tmp_path, "-m", *program)  # and ends there, because there is none
    assert needed in modules
    assert not unneeded & modules


def test_an_app_has_what_verifies_tokens_only_when_it_has_a_key(tmp_path: Path) -> None:
    assert not NOT_THE_API & imported(tmp_path, "-c", APP, code=0)
    with_key = imported(tmp_path, "-c", APP, code=0, JWT_VERIFY_KEY=32 * "k")
    assert "jwt" in with_key
    assert not (NOT_THE_API - {"jwt"}) & with_key
