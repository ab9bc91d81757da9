"""The settings. Only this module reads them from the environment; `.env.default` lists them all (a test compares)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from backend.errors import ConfigError
from backend.failpoints import Failpoint
from backend.model_list import ANTHROPIC_FORMAT, ONLY_ID, ModelEntry, ModelList, known_to_accept, read_models
from backend.setting_types import (
    LONGEST_S,
    AllowedHosts,
    ApprovalRuleList,
    Count,
    FilesUrl,
    Host,
    Hosts,
    HttpUrl,
    ListeningHost,
    Networks,
    OriginList,
    Port,
    Seconds,
    SocketOrHosts,
    token_keys,
)

if TYPE_CHECKING:
    from dotenv.parser import Binding

SAMPLE_SECRETS = frozenset({"changeme", "change-me", "password", "secret", "guest", "example", "postgres", "copilot"})
TOLD = "COPILOT_SETTINGS_CHECKED"
"""Environment variable that `up` sets for its child processes, because it has already checked `.env`."""
_OF_ONE_MODEL = (
    *("chat_provider", "chat_model", "chat_api_key"),
    *("chat_base_url", "openrouter_base_url", "openai_base_url"),
)
"""Settings that CHAT_MODELS replaces. The key for the server of CHAT_BASE_URL must not go to the server of an entry."""
_NEAR_WITH_PREFIX, _NEAR = 0.77, 0.9
"""How alike a variable must be to a setting with the same first word, or to any, to be taken for it misspelt.
DB_PASSWORD and DB_PASS: 0.78; RABBITMQ_SERVICE_PORT, which Kubernetes sets, and RABBITMQ_PORT: 0.76."""
FILES = (Path(".env.default"), Path(".env"))
logger = logging.getLogger(__name__)
Provider = Literal["openai", "openai-chat", "openai-responses", "anthropic", "claude_agent", "scripted"]
"""The formats of models."""


class Settings(BaseModel):
    """The settings of a process. The names are those of the environment, in lower case; times are in seconds.

    `load_settings` fills it. It is a plain model because importing pydantic-settings takes 20 ms at every start.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    # addresses and ports
    host: ListeningHost = "127.0.0.1"
    port: int = Field(8006, ge=0, le=65535)
    platform_base_url: HttpUrl = "http://127.0.0.1:8006"
    frontend_base_url: OriginList = ""
    allowed_hosts: AllowedHosts = ""
    cors_headers: str = Field("", pattern=r"^[A-Za-z0-9-]*( *, *[A-Za-z0-9-]+)*$")
    cors_credentials: bool = False
    trusted_proxies: str = ""
    executor_port: int = Field(8008, ge=0, le=65535)
    data_dir: Path = Path(".data")
    files_url: FilesUrl = ""
    files_access_key: SecretStr | None = None
    files_secret_key: SecretStr | None = None

    # stores
    database_url: SecretStr | None = None
    db_host: SocketOrHosts | None = None
    db_port: Port = 5432
    db_user: str = "postgres"
    db_pass: SecretStr = SecretStr("")
    db_name: str = "copilot"
    db_schema: str = "public"
    db_pool_size: int = Field(10, ge=2, le=200)
    redis_url: SecretStr | None = None
    redis_host: Host | None = None
    redis_port: Port = 6379
    redis_password: SecretStr = SecretStr("")
    redis_pool_size: int = Field(16, ge=2, le=500)
    queue: Literal["rabbitmq", "redis"] = "rabbitmq"
    rabbitmq_url: SecretStr | None = None
    rabbitmq_host: Hosts | None = None
    rabbitmq_port: Port = 5672
    rabbitmq_default_user: str = "guest"
    rabbitmq_default_pass: SecretStr = SecretStr("guest")

    # users and service keys
    auth_mode: Literal["optional", "required", "none"] = "optional"
    jwt_verify_key: SecretStr | None = None
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = "HS256"
    jwt_jwks_url: HttpUrl | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    chat_internal_api_key: SecretStr | None = None
    chat_frontend_api_key: SecretStr | None = None
    chat_webhook_secret: SecretStr | None = None
    metrics_key: SecretStr | None = None
    webhook_private_networks: Networks = ""

    # the models
    chat_models: SecretStr = SecretStr("")
    chat_provider: Provider | None = None
    chat_model: str = ""
    chat_title_model: str | None = None
    chat_api_key: SecretStr | None = None
    open_router_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    anthropic_api_key: SecretStr | None = None
    chat_base_url: HttpUrl | None = None
    openrouter_base_url: HttpUrl | None = None
    openai_base_url: HttpUrl | None = None
    chat_system_prompt: str = ""
    chat_accepts: str = Field("", pattern=r"^(none|(image|pdf|audio)(,(image|pdf|audio)){0,2})?$")
    user_instructions: bool = True
    share_links: bool = False
    chat_context_tokens: int = Field(128_000, ge=2_000, le=2**31 - 1)
    chat_max_output_tokens: Count = 8_192
    chat_summaries: bool = True
    chat_summary_model: str | None = None
    chat_summary_tokens: int = Field(4_000, ge=200, le=100_000)
    chat_summary_timeout: float = Field(120, gt=0, le=3_600)
    claude_engine_turns: int = Field(4, ge=1, le=64)
    chat_first_byte_timeout: float | None = Field(None, gt=0, le=7_200)
    docs_dir: Path | None = None
    mcp_servers_file: Path | None = None
    mcp_token_keys: SecretStr | None = None
    mcp_claims: str = Field("", pattern=r"^([A-Za-z0-9_.:/-]{1,100}( *, *[A-Za-z0-9_.:/-]{1,100}){0,15})?$")
    mcp_start_timeout: float = Field(60, gt=0, le=3600)
    web_fetch: bool = True
    web_search_url: HttpUrl | None = None
    brave_search_api_key: SecretStr | None = None
    tavily_api_key: SecretStr | None = None
    feature_requests_github: str | None = Field(None, pattern=r"^[\w.-]{1,39}/[\w.-]{1,50}$")
    feature_requests_github_token: SecretStr | None = None
    feature_requests_github_label: str = Field("feature-request", min_length=1, max_length=50)
    feature_requests_github_url: HttpUrl = "https://api.github.com"
    workspace_tools: bool = True
    bash_exec: bool = False
    sandbox_socket: Path | None = None
    elicitation_wait: float = Field(300, ge=0, le=3600)

    # the agent generator
    agentgenerator_host: Host | None = None
    agentgenerator_port: Port = 8000
    agentgenerator_timeout: Seconds = 600
    agent_templates_dir: Path | None = None

    # the agent platform
    platform_url: HttpUrl | None = None
    platform_api_key: SecretStr | None = None
    platform_timeout: Seconds = 60
    max_agent_runs: Count = 30
    max_agent_schedules: Count = 30

    # limits
    max_message_chars: Count = 64_000
    max_body_bytes: int = Field(1_048_576, ge=1_024, le=2**31 - 1)
    max_chat_body_bytes: int = Field(8_388_608, ge=1_024, le=2**31 - 1)
    max_body_memory: int = Field(67_108_864, ge=1_048_576, le=2**40)
    max_running_turns: Count = 5
    max_waiting_turns: int = Field(15, ge=0, le=2**31 - 1)
    max_waiting_steers: int = Field(10, ge=0, le=2**31 - 1)
    max_open_streams: Count = 8
    max_new_sessions: Count = 120
    max_image_bytes: int = Field(20_971_520, ge=1_024, le=268_435_456)
    max_pdf_bytes: int = Field(20_971_520, ge=1_024, le=268_435_456)
    max_text_bytes: int = Field(1_048_576, ge=1_024, le=268_435_456)
    max_files: int = Field(2_000, ge=0, le=2**31 - 1)
    max_files_bytes: int = Field(2_147_483_648, ge=0, le=2**50)
    max_agents: Count = 1000
    max_webhooks: int = Field(5, ge=0, le=1_000)
    max_steps: Count = 25
    max_turn_tokens: Count = 1_000_000
    turn_timeout: Seconds = 7200
    tool_timeout: Seconds = 120

    # runtime
    executor_concurrency: int = Field(64, ge=1, le=1000)
    tool_parts: Literal["dynamic", "static"] = "dynamic"
    stream_ttl: int = Field(3600, ge=10, le=LONGEST_S)
    session_lock_ttl: int = Field(30, ge=2, le=LONGEST_S)
    operation_timeout: Seconds = 3600
    operation_ask_again: float = Field(300, ge=0, le=LONGEST_S, allow_inf_nan=False)
    max_crashes: Count = 3
    max_operations: Count = 20
    max_questions: Count = 100
    tool_approval: ApprovalRuleList = ""
    ask_user: Literal["accepted", "always", "never"] = "accepted"
    question_days: float = Field(7, gt=0, le=LONGEST_S / 86_400)
    retention_days: int = Field(0, ge=0, le=36_500)
    shutdown_grace: float = Field(30, ge=0, le=LONGEST_S, allow_inf_nan=False)
    max_clock_skew: float = Field(60, ge=0, le=LONGEST_S, allow_inf_nan=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    failpoints: str = ""

    @field_validator("failpoints")
    @classmethod
    def _require_known_failpoints(cls, plan: str) -> str:
        Failpoint.parse_all(plan)
        return plan

    @field_validator("mcp_token_keys")
    @classmethod
    def _require_token_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            token_keys(keys.get_secret_value())
        return keys

    @model_validator(mode="after")
    def _require_what_fits_together(self) -> Self:
        faults = [
            *self._unfit_file_keys(),
            *self._unfit_jwt_keys(),
            *self._weak_secrets(),
            *self._sample_passwords(),
            *self._unfit_models(),
            *self._unfit_github(),
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _unfit_jwt_keys(self) -> Iterator[str]:
        if self.jwt_verify_key is not None and self.jwt_jwks_url is not None:
            yield "JWT_VERIFY_KEY and JWT_JWKS_URL: set only one of them"
        if self.jwt_jwks_url is not None and self.jwt_algorithm == "HS256":
            yield "JWT_ALGORITHM: JWT_JWKS_URL needs RS256 or ES256"
        if self.auth_mode == "required" and self.jwt_verify_key is None and self.jwt_jwks_url is None:
            yield "JWT_VERIFY_KEY or JWT_JWKS_URL: AUTH_MODE=required needs one of them"

    def _weak_secrets(self) -> Iterator[str]:
        for name in (
            "jwt_verify_key",
            "chat_internal_api_key",
            "chat_frontend_api_key",
            "chat_webhook_secret",
            "metrics_key",
        ):
            value: SecretStr | None = getattr(self, name)
            if value is None:
                continue
            least = 32 if name == "jwt_verify_key" and self.jwt_algorithm == "HS256" else 16
            secrets = [value.get_secret_value()] if least == 32 else value.get_secret_value().split(",")
            if any(one.strip().lower() in SAMPLE_SECRETS or len(one.strip().encode()) < least for one in secrets):
                yield f"{name.upper()}: a sample or too short; use at least {least} characters"

    def _unfit_file_keys(self) -> Iterator[str]:
        if (self.files_access_key is None) != (self.files_secret_key is None):
            yield "FILES_ACCESS_KEY and FILES_SECRET_KEY: set both or none"

    def _sample_passwords(self) -> Iterator[str]:
        """Rejects a sample password for a server on another machine; on this machine it is accepted."""
        for setting, host, password in (
            ("DB_PASS", self.db_host, self.db_pass),
            ("REDIS_PASSWORD", self.redis_host, self.redis_password),
            ("RABBITMQ_DEFAULT_PASS", self.rabbitmq_host, self.rabbitmq_default_pass),
        ):
            here = host is None or host.startswith("/") or host.strip("[]") in ("localhost", "127.0.0.1", "::1")
            if not here and password.get_secret_value().lower() in SAMPLE_SECRETS:
                yield f"{setting}: a sample password; choose your own"

    def _unfit_github(self) -> Iterator[str]:
        if self.feature_requests_github is not None and self.feature_requests_github_token is None:
            yield "FEATURE_REQUESTS_GITHUB_TOKEN: required with FEATURE_REQUESTS_GITHUB"

    def _unfit_models(self) -> Iterator[str]:
        if not self.chat_models.get_secret_value():
            return
        try:
            used = self.models.variables  # the list is read once, here
        except ConfigError as error:
            yield str(error)
            return
        for name in (name.upper() for name in _OF_ONE_MODEL if getattr(self, name)):
            if name not in used:
                yield f"{name}: has no effect beside CHAT_MODELS; put it into the list"

    @cached_property
    def models(self) -> ModelList:
        """The models that answer. Raises ConfigError, unless these settings are validated already."""
        if listed := self.chat_models.get_secret_value():
            return read_models(listed, title=self.chat_title_model or None, summary=self.chat_summary_model or None)
        label = self.chat_model or self.provider
        title = ModelEntry(id="title", model=self.chat_title_model) if self.chat_title_model else None
        summary = ModelEntry(id="summary", model=self.chat_summary_model) if self.chat_summary_model else None
        only = ModelEntry(id=ONLY_ID, label=label[:100], model=self.chat_model)
        return ModelList((only,), title, summary, listed=False)

    @property
    def claims(self) -> Sequence[str]:
        """The names in MCP_CLAIMS."""
        return [name.strip() for name in self.mcp_claims.split(",") if name.strip()]

    @property
    def database_dsn(self) -> str:
        """The DSN of PostgreSQL. Raises ConfigError if neither DATABASE_URL nor DB_HOST is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.db_host is None:
            raise ConfigError("DATABASE_URL (or DB_HOST) is not set")
        password = self.db_pass.get_secret_value()
        login = quote(self.db_user, safe="") + (f":{quote(password, safe='')}" if password else "")
        place, query = f"{login}@", f"schema={quote(self.db_schema, safe='')}"
        if self.db_host.startswith("/"):
            query += f"&host={quote(self.db_host, safe='')}&port={self.db_port}"
        else:
            place += _with_port(self.db_host, self.db_port)
        return f"postgresql://{place}/{quote(self.db_name, safe='')}?{query}"

    @property
    def redis_dsn(self) -> str:
        """The DSN of Redis. Raises ConfigError if neither REDIS_URL nor REDIS_HOST is set."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        if self.redis_host is None:
            raise ConfigError("REDIS_URL (or REDIS_HOST) is not set")
        password = self.redis_password.get_secret_value()
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}{_with_port(self.redis_host, self.redis_port)}/0"

    @property
    def rabbitmq_dsn(self) -> str:
        """The DSN of RabbitMQ. Raises ConfigError if neither RABBITMQ_URL nor RABBITMQ_HOST is set."""
        if self.rabbitmq_url is not None:
            return self.rabbitmq_url.get_secret_value()
        if self.rabbitmq_host is None:
            raise ConfigError("RABBITMQ_URL (or RABBITMQ_HOST) is not set; with QUEUE=redis it is not needed")
        user, password = self.rabbitmq_default_user, self.rabbitmq_default_pass.get_secret_value()
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{login}@{_with_port(self.rabbitmq_host, self.rabbitmq_port)}/"

    @property
    def provider(self) -> Provider:
        """The provider that is set; otherwise the one whose key is set, the server of a base URL, or `scripted`.

        CHAT_BASE_URL is enough for a server without a key. The base URLs of OpenAI and OpenRouter need a key or a
        CHAT_MODEL, because other programs on the machine may use the same names.
        """
        if self.chat_provider is not None:
            return self.chat_provider
        if self.model_api_key is not None:
            return "openai"
        if self.anthropic_api_key is not None:
            return "anthropic"
        named = self.chat_base_url or (self.chat_model and (self.openrouter_base_url or self.openai_base_url))
        return "openai" if named else "scripted"

    @property
    def searches_web(self) -> bool:
        """True if a service for web_search is set."""
        return (self.web_search_url or self.brave_search_api_key or self.tavily_api_key) is not None

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


def accepted_file_kinds(entry: ModelEntry, settings: Settings) -> frozenset[str]:
    """Returns the kinds of files that a model takes: what its entry says, or CHAT_ACCEPTS, or what its name tells."""
    if entry.accepts is not None:
        return frozenset(entry.accepts)
    if entry.images:
        return frozenset({"image"})
    if settings.chat_accepts:
        return frozenset(settings.chat_accepts.split(",")) - {"none"}
    if settings.models.listed:
        return known_to_accept(entry.provider, entry.base_url, entry.model)
    base_url = settings.chat_base_url if settings.provider in ANTHROPIC_FORMAT else settings.model_base_url
    return known_to_accept(settings.provider, base_url, entry.model)


def _with_port(hosts: str, port: int) -> str:
    """Returns one host or several, each with the port, as a URL has them: an IPv6 address in brackets."""
    names = [host.strip().strip("[]") for host in hosts.split(",") if host.strip()]
    return ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names)


def unknown_settings(file: Path = Path(".env"), used: Container[str] = ()) -> list[str]:
    """Returns the names in `.env` that are no settings, each with a similar setting if there is one.

    Leaves out the names that Docker Compose reads, and those that CHAT_MODELS uses (`used`).
    """
    known = sorted(name.upper() for name in Settings.model_fields)
    found = []
    text = _text_of(file)
    for binding in _bindings(file, text) if text else ():
        name = (binding.key or "").upper()
        others = name == "PUBLISHED_PORT" or name.startswith("COMPOSE_") or binding.key in used
        if name and name not in known and not others:
            alike = get_close_matches(name, known, 1)
            found.append(f"{binding.key} (do you mean {alike[0]}?)" if alike else str(binding.key))
    return found


def misspelt_variables(used: Container[str] = ()) -> list[str]:
    """Returns the names in the environment that are nearly those of settings, each with the setting.

    Other programs have variables with similar names, so only the nearest count. Leaves out what CHAT_MODELS uses
    (`used`), and OTEL_ variables.
    """
    known = sorted(name.upper() for name in Settings.model_fields)
    found = []
    for variable in sorted(os.environ):
        name = variable.upper()
        if name in known or variable in used or name.startswith(("OTEL_", "COPILOT_")):
            continue
        related = [one for one in known if one.startswith(f"{name.partition('_')[0]}_")]
        alike = get_close_matches(name, known, 1, _NEAR) or get_close_matches(name, related, 1, _NEAR_WITH_PREFIX)
        if alike:
            found.append(f"{variable} (do you mean {alike[0]}?)")
    return found


def warn_of_unknown_settings(settings: Settings) -> None:
    """Logs the names in `.env` that have no effect, and those in the environment that look like settings.

    A child process of `up` logs nothing, since `up` does.
    """
    if TOLD in os.environ:
        return
    used = settings.models.variables
    if names := unknown_settings(used=used):
        logger.warning("unknown settings in .env", extra={"names": ", ".join(names)})
    if names := misspelt_variables(used):
        logger.warning("unknown settings in the environment", extra={"names": ", ".join(names)})


def _bindings(file: Path, text: str) -> list[Binding]:
    """Parses a file. Raises ConfigError for a line that cannot be read, which python-dotenv would skip."""
    from dotenv.parser import parse_stream  # imported late: a container often has no such file

    bindings = list(parse_stream(StringIO(text)))
    for binding in bindings:
        if binding.error:
            raise ConfigError(f"{file}, line {binding.original.line}: expected NAME=value")
    return bindings


def _text_of(file: Path) -> str:
    """Returns the text of a file, or an empty string if there is no file. Raises ConfigError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {type(error).__name__}") from None


def _values_of(file: Path) -> dict[str, object]:
    """Returns the values that a file sets, by lower-case name. Raises ConfigError."""
    text = _text_of(file)
    if not text:
        return {}
    _bindings(file, text)
    from dotenv import dotenv_values  # imported late, see above

    return {name.lower(): value for name, value in dotenv_values(stream=StringIO(text)).items() if value}


def _given(files: Sequence[Path]) -> dict[str, object]:
    """Returns the values of the environment and of the files, by lower-case name; the environment wins.

    Raises ConfigError.
    """
    given: dict[str, object] = {}
    for file in files:
        given |= _values_of(file)
    return given | {name.lower(): value for name, value in os.environ.items() if value}


def variables_of_models(names: Iterable[str]) -> Mapping[str, str]:
    """Returns those of the variables that the environment or `.env` sets, for CHAT_MODELS. Raises ConfigError."""
    given = _given(FILES[-1:])
    return {name: str(given[name.lower()]) for name in names if name.lower() in given}


def chosen_settings() -> set[str]:
    """Returns the names of the settings that `.env` or the environment sets, not `.env.default`. Raises ConfigError."""
    return _given(FILES[-1:]).keys() & Settings.model_fields.keys()


def load_settings(files: Sequence[Path] = FILES, **overrides: object) -> Settings:
    """Returns the settings. `overrides` win over the environment, which wins over the files; later files win.

    An empty value in the environment or a file counts as not set. Raises ConfigError with a line for each wrong
    setting, or with one that names the line of a file.
    """
    given = _given(files) | overrides
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(given, error))) from None


def _faults(given: Mapping[str, object], error: ValidationError) -> Iterator[str]:
    """Yields a line for each wrong setting, then what does not fit together among the others."""
    wrong: dict[str, str] = {}
    for fault in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in fault["loc"][:1]).upper()
        wrong.setdefault(name, fault["msg"].removeprefix("Value error, "))
    yield from (f"{name}: {said}" if name else said for name, said in wrong.items())
    if "" in wrong:
        return
    try:
        Settings.model_validate({name: value for name, value in given.items() if name.upper() not in wrong})
    except ValidationError as unfit:
        lines = "\n".join(_faults({}, unfit)).split("\n")
        yield from (line for line in lines if wrong.keys().isdisjoint(re.findall(r"[A-Z_]+", line)))
