"""The agent generator and the agent platform of examples/: one process, used if no other generator is configured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from backend.config import Settings
from backend.errors import ConfigError
from backend.listening import free_port

GENERATOR = "examples.agent_generator"
PLATFORM_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class OwnGenerator:
    """The port of the process, and the environment of it and of those that call it."""

    port: int
    environment: Mapping[str, str]


def own_generator(settings: Settings, own_address: str) -> OwnGenerator | None:
    """Returns None if another generator is configured, or if there is no examples/ folder.

    `own_address` is the URL at which other services reach the API.
    """
    if settings.agentgenerator_host is not None or not Path(*GENERATOR.split(".")).is_dir():
        return None
    port = _kept_port(settings.data_dir.expanduser() / "platform" / "port")
    keys = settings.chat_internal_api_key
    key = keys.get_secret_value().partition(",")[0].strip() if keys is not None else token_urlsafe(32)
    new_key = {} if keys is not None else {"CHAT_INTERNAL_API_KEY": key}
    return OwnGenerator(
        port,
        {
            **new_key,
            "AGENTGENERATOR_HOST": "127.0.0.1",
            "AGENTGENERATOR_PORT": str(port),
            "AGENT_TEMPLATES_DIR": str(settings.agent_templates_dir or Path("examples", "agent_templates").resolve()),
            "GENERATOR_API_KEY": key,
            "GENERATOR_CALLBACK_BASE": own_address,
            "GENERATOR_DELAY": "8",
            "GENERATOR_PROGRESS": "6",
            **_platform(settings, port),
        },
    )


def _kept_port(file: Path) -> int:
    """Returns the port of the last start, if it is free, and keeps it in `file`.

    Webhooks from outside name the port, so it should not change at each start. Not being able to write
    the file is no error.
    """
    try:
        port = free_port("127.0.0.1", int(file.read_text()[:5]), "AGENTGENERATOR_PORT")
    except (OSError, ValueError, OverflowError, ConfigError):
        port = free_port("127.0.0.1", 0, "AGENTGENERATOR_PORT")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(str(port))
    return port


def _platform(settings: Settings, port: int) -> dict[str, str]:
    """Returns the environment of the platform, and of its callers unless another platform is configured."""
    data = {"PLATFORM_DATA": str(settings.data_dir.expanduser().absolute() / "platform")}
    if settings.platform_url is not None:
        return data
    key = settings.platform_api_key
    return {
        **data,
        "PLATFORM_URL": f"http://127.0.0.1:{port}{PLATFORM_PREFIX}",
        "PLATFORM_API_KEY": key.get_secret_value() if key is not None else token_urlsafe(32),
    }
