"""Settings, the only reader of the environment. `.env.default` lists them all; a test keeps the two equal."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from backend.errors import ConfigError
from backend.failpoints import Failpoint

if TYPE_CHECKING:
    from dotenv.parser import Binding

SAMPLE_SECRETS = frozenset({"changeme", "change-me", "password", "secret", "guest", "example", "postgres", "copilot"})
TOLD = "COPILOT_SETTINGS_CHECKED"
"""In the environment of a process whose parent has checked `.env` already."""
FILES = (Path(".env.default"), Path(".env"))
logger = logging.getLogger(__name__)
Provider = Literal["openai", "anthropic", "claude_agent", "scripted"]


class Settings(BaseModel):
    """Everything that can be set. Names are those of the environment, in lower case; times are in seconds.

    `load_settings` fills it. A plain model, because importing pydantic-settings costs each process 20 ms at its start.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    # where the API listens, and how others reach it
    host: str = "127.0.0.1"
    port: int = Field(8006, ge=0, le=65535)
    platform_base_url: str = "http://127.0.0.1:8006"
    frontend_base_url: str = ""
    trusted_proxies: str = ""
    executor_port: int = Field(8008, ge=0, le=65535)
    data_dir: Path = Path(".data")

    # stores
    database_url: SecretStr | None = None
    db_host: str | None = None
    db_port: int = 5432
    db_user: str = "postgres"
    db_pass: SecretStr = SecretStr("")
    db_name: str = "copilot"
    db_schema: str = "public"
    db_pool_size: int = Field(10, ge=2, le=200)
    redis_url: SecretStr | None = None
    redis_host: str | None = None
    redis_port: int = 6379
    redis_password: SecretStr = SecretStr("")
    redis_pool_size: int = Field(16, ge=2, le=500)
    queue: Literal["rabbitmq", "redis"] = "rabbitmq"
    rabbitmq_url: SecretStr | None = None
    rabbitmq_host: str | None = None
    rabbitmq_port: int = 5672
    rabbitmq_default_user: str = "guest"
    rabbitmq_default_pass: SecretStr = SecretStr("guest")

    # users and service keys
    auth_mode: Literal["optional", "required", "none"] = "optional"
    jwt_verify_key: SecretStr | None = None
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = "HS256"
    jwt_jwks_url: str | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    chat_internal_api_key: SecretStr | None = None
    chat_webhook_secret: SecretStr | None = None

    # the model
    chat_provider: Provider | None = None
    chat_model: str = ""
    chat_title_model: str | None = None
    chat_api_key: SecretStr | None = None
    open_router_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    anthropic_api_key: SecretStr | None = None
    chat_base_url: str | None = None
    openrouter_base_url: str | None = None
    openai_base_url: str | None = None
    chat_system_prompt: str = ""
    chat_context_tokens: int = Field(128_000, ge=2_000)
    chat_max_output_tokens: int = Field(8_192, ge=1)
    docs_dir: Path | None = None
    mcp_servers_file: Path | None = None

    # the agent generator
    agentgenerator_host: str | None = None
    agentgenerator_port: int = 8000
    agentgenerator_timeout: float = Field(600, gt=0)
    agent_templates_dir: Path | None = None

    # limits
    max_message_chars: int = Field(64_000, ge=1)
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    max_chat_body_bytes: int = Field(16_777_216, ge=1_024)
    max_running_turns: int = Field(5, ge=1)
    max_waiting_turns: int = Field(15, ge=0)
    max_open_streams: int = Field(8, ge=1)
    max_steps: int = Field(25, ge=1)
    max_turn_tokens: int = Field(1_000_000, ge=1)
    turn_timeout: float = Field(7200, gt=0)
    tool_timeout: float = Field(120, gt=0)

    # running
    executor_concurrency: int = Field(64, ge=1, le=1000)
    stream_ttl: int = Field(3600, ge=10)
    session_lock_ttl: int = Field(30, ge=2)
    operation_timeout: float = Field(3600, gt=0)
    max_crashes: int = Field(3, ge=1)
    shutdown_grace: float = Field(30, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    otel_exporter_otlp_endpoint: str | None = None
    failpoints: str = ""

    @field_validator("failpoints")
    @classmethod
    def _failpoints_are_known(cls, plan: str) -> str:
        Failpoint.parse_all(plan)
        return plan

    @model_validator(mode="after")
    def _keys_fit_the_algorithm(self) -> Self:
        if self.jwt_verify_key is not None and self.jwt_jwks_url is not None:
            raise ValueError("JWT_VERIFY_KEY and JWT_JWKS_URL: set one of them")
        if self.jwt_jwks_url is not None and self.jwt_algorithm == "HS256":
            raise ValueError("JWT_ALGORITHM: a JWKS URL needs RS256 or ES256")
        if self.auth_mode == "required" and self.jwt_verify_key is None and self.jwt_jwks_url is None:
            raise ValueError("JWT_VERIFY_KEY or JWT_JWKS_URL: AUTH_MODE=required needs one of them")
        return self

    @model_validator(mode="after")
    def _no_sample_secrets(self) -> Self:
        for name in ("jwt_verify_key", "chat_internal_api_key", "chat_webhook_secret"):
            value: SecretStr | None = getattr(self, name)
            if value is None:
                continue
            least = 32 if name == "jwt_verify_key" and self.jwt_algorithm == "HS256" else 16
            secrets = [value.get_secret_value()] if least == 32 else value.get_secret_value().split(",")
            for secret in secrets:
                if secret.strip().lower() in SAMPLE_SECRETS or len(secret.strip().encode()) < least:
                    raise ValueError(f"{name.upper()}: a sample or too short ({least} characters at least)")
        return self

    @model_validator(mode="after")
    def _no_sample_passwords(self) -> Self:
        """Of a server on another machine; on this one a sample does no harm."""
        for setting, host, password in (
            ("DB_PASS", self.db_host, self.db_pass),
            ("REDIS_PASSWORD", self.redis_host, self.redis_password),
            ("RABBITMQ_DEFAULT_PASS", self.rabbitmq_host, self.rabbitmq_default_pass),
        ):
            elsewhere = host is not None and host not in ("localhost", "127.0.0.1", "::1") and not host.startswith("/")
            if elsewhere and password.get_secret_value().lower() in SAMPLE_SECRETS:
                raise ValueError(f"{setting}: a sample password; set one of your own")
        return self

    @property
    def database_dsn(self) -> str:
        """Raises ConfigError when neither DATABASE_URL nor DB_HOST is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.db_host is None:
            raise ConfigError("DATABASE_URL (or DB_HOST) is not set")
        password = self.db_pass.get_secret_value()
        login = quote(self.db_user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{login}@{self.db_host}:{self.db_port}/{self.db_name}?schema={self.db_schema}"

    @property
    def redis_dsn(self) -> str:
        """Raises ConfigError when neither REDIS_URL nor REDIS_HOST is set."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        if self.redis_host is None:
            raise ConfigError("REDIS_URL (or REDIS_HOST) is not set")
        password = self.redis_password.get_secret_value()
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}{self.redis_host}:{self.redis_port}/0"

    @property
    def rabbitmq_dsn(self) -> str:
        """Raises ConfigError when neither RABBITMQ_URL nor RABBITMQ_HOST is set."""
        if self.rabbitmq_url is not None:
            return self.rabbitmq_url.get_secret_value()
        if self.rabbitmq_host is None:
            raise ConfigError("RABBITMQ_URL (or RABBITMQ_HOST) is not set; QUEUE=redis needs neither")
        user, password = self.rabbitmq_default_user, self.rabbitmq_default_pass.get_secret_value()
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{self.rabbitmq_host}:{self.rabbitmq_port}/"

    @property
    def provider(self) -> Provider:
        """The provider that is set, else the one whose key is, else the scripted one."""
        if self.chat_provider is not None:
            return self.chat_provider
        if self.model_api_key is not None:
            return "openai"
        return "anthropic" if self.anthropic_api_key is not None else "scripted"

    @property
    def model_api_key(self) -> SecretStr | None:
        return self.chat_api_key or self.open_router_api_key or self.openai_api_key

    @property
    def model_base_url_setting(self) -> str:
        """The name of the setting that `model_base_url` comes from."""
        if self.chat_base_url:
            return "CHAT_BASE_URL"
        return "OPENROUTER_BASE_URL" if self.openrouter_base_url else "OPENAI_BASE_URL"

    @property
    def model_base_url(self) -> str | None:
        if self.chat_base_url or self.openrouter_base_url or self.openai_base_url:
            return self.chat_base_url or self.openrouter_base_url or self.openai_base_url
        no_other_key = self.chat_api_key is None and self.open_router_api_key is not None
        return "https://openrouter.ai/api/v1" if no_other_key else None


def unknown_settings(file: Path = Path(".env")) -> list[str]:
    """The names in `.env` that no setting has, each with the setting that it is like; what Compose reads is known."""
    known = sorted(name.upper() for name in Settings.model_fields)
    found = []
    text = _text_of(file)
    for binding in _bindings(file, text) if text else ():
        name = (binding.key or "").upper()
        if name and name not in known and name != "PUBLISHED_PORT" and not name.startswith("COMPOSE_"):
            alike = get_close_matches(name, known, 1)
            found.append(f"{binding.key} (do you mean {alike[0]}?)" if alike else str(binding.key))
    return found


def warn_of_unknown_settings() -> None:
    """Says once, at the start, which names in `.env` have no effect; the children of `up` leave it to `up`."""
    if TOLD not in os.environ and (names := unknown_settings()):
        logger.warning("names in .env that no setting has", extra={"names": ", ".join(names)})


def _bindings(file: Path, text: str) -> list[Binding]:
    """Raises ConfigError for a line that cannot be read: python-dotenv leaves it out and goes on."""
    from dotenv.parser import parse_stream  # in a container there is often no file to read, so this costs it nothing

    bindings = list(parse_stream(StringIO(text)))
    for binding in bindings:
        if binding.error:
            raise ConfigError(f"{file}, line {binding.original.line}: not NAME=value")
    return bindings


def _text_of(file: Path) -> str:
    """Returns what stands in a file; nothing when there is none. Raises ConfigError."""
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {type(error).__name__}") from None


def _values_of(file: Path) -> dict[str, object]:
    """Returns what a file sets, by the names of settings. Raises ConfigError."""
    text = _text_of(file)
    if not text:
        return {}
    _bindings(file, text)
    from dotenv import dotenv_values  # as above

    return {name.lower(): value for name, value in dotenv_values(stream=StringIO(text)).items() if value}


def _given(files: Sequence[Path]) -> dict[str, object]:
    """Returns what the environment sets, and what a file sets besides, by name. Raises ConfigError."""
    given: dict[str, object] = {}
    for file in files:
        given |= _values_of(file)
    return given | {name.lower(): value for name, value in os.environ.items() if value}


def chosen_settings() -> set[str]:
    """Returns the names that `.env` or the environment sets; `.env.default` chooses nothing. Raises ConfigError."""
    return _given(FILES[-1:]).keys() & Settings.model_fields.keys()


def load_settings(files: Sequence[Path] = FILES, **overrides: object) -> Settings:
    """Returns what the overrides, the environment and the files set, the first of these before the others, and a later
    file before an earlier one. An empty value sets nothing.

    Raises ConfigError with one line that names the first wrong setting or line of a file."""
    try:
        return Settings.model_validate(_given(files) | overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"{name}: {first['msg']}" if name else first["msg"].removeprefix("Value error, ")) from None
