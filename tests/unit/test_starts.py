"""Checks that a process imports no unneeded module at its start, so that it starts fast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.speed import limit

UNNEEDED = {
    "aio_pika",  # only with QUEUE=rabbitmq
    "anthropic",
    "backend.embedded",  # only for `up` and for child processes of the executor
    "dotenv",  # only with a .env file
    "httpx2",  # only with a JWKS URL, a generator or a provider
    "mcp",
    "obstore",  # only with a file
    "openai",
    "PIL",
    "pydantic_settings",
    "pypdfium2",
    "typer",
}
# the API reads outcomes only later, and verifies tokens only with a key
UNNEEDED_IN_API = UNNEEDED | {"backend.chat.flows.results", "backend.chat.protocol.tool_responses", "executor", "jwt"}
UNNEEDED_IN_EXECUTOR = UNNEEDED | {"anyio", "fastapi", "jwt", "starlette"}
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
    """Runs a program that must end with the exit code `code`. Returns the modules that it imported."""
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
        (("backend", "serve"), UNNEEDED_IN_API, "backend.api.server"),
        (("executor",), UNNEEDED_IN_EXECUTOR, "executor.worker"),
    ],
)
def test_a_process_connects_to_its_database_without_importing_unneeded_modules(
    program: tuple[str, ...], unneeded: set[str], needed: str, tmp_path: Path
) -> None:
    modules = imported(tmp_path, "-m", *program)  # it ends because there is no database
    assert needed in modules
    assert not unneeded & modules


def test_the_app_imports_jwt_only_if_it_has_a_key(tmp_path: Path) -> None:
    assert not UNNEEDED_IN_API & imported(tmp_path, "-c", APP, code=0)
    with_key = imported(tmp_path, "-c", APP, code=0, JWT_VERIFY_KEY=32 * "k")
    assert "jwt" in with_key
    assert not (UNNEEDED_IN_API - {"jwt"}) & with_key
