"""Checks of settings that are valid and seldom intended. Findings name a value only if it is no secret."""

from __future__ import annotations

from collections.abc import Iterator

from backend.config import Settings, misspelt_variables, unknown_settings
from backend.operating.findings import Finding, ok, warning

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_settings(settings: Settings, *, beside_up: bool = False) -> list[Finding]:
    """Returns a finding for each unusual setting. `beside_up`: an `up` runs, which has made a key for the webhook."""
    found = list(_unusual(settings, beside_up))
    return found or [ok("settings", "nothing unusual")]


def _unusual(settings: Settings, beside_up: bool) -> Iterator[Finding]:
    public = settings.host not in _LOOPBACK
    for name in unknown_settings(used=settings.models.variables):
        yield warning("settings", f"{name} in .env is no setting", "correct or remove it; it has no effect")
    for name in misspelt_variables(settings.models.variables):
        yield warning("settings", f"{name} in the environment is no setting", "correct it if it is meant for CoPilot")
    if settings.failpoints:
        yield warning("settings", "FAILPOINTS is set", "remove it: processes die where it says, for tests")
    if settings.auth_mode == "none" and public:
        yield warning(
            "settings",
            f"AUTH_MODE=none and HOST={settings.host}: every machine that reaches it is the same user",
            "set AUTH_MODE=required and JWT_VERIFY_KEY, unless that is intended",
        )
    if settings.metrics_key is None and public:
        yield warning("settings", "METRICS_KEY is not set", "set it, or let the proxy refuse /metrics from outside")
    if settings.chat_internal_api_key is None and settings.chat_webhook_secret is None and not beside_up:
        yield warning(
            "settings",
            "neither CHAT_INTERNAL_API_KEY nor CHAT_WEBHOOK_SECRET is set: the completion webhook is closed",
            "set one of them if another service reports outcomes: docs/operations.md",
        )
    default = settings.models.default.provider if settings.models.listed else settings.provider
    if default == "scripted":
        yield warning("settings", "answers come from the scripted model", "set a key or CHAT_BASE_URL: docs/models.md")
    if settings.log_level == "DEBUG":
        yield warning("settings", "LOG_LEVEL=DEBUG", "set INFO: at DEBUG the log is large")
    if not settings.max_clock_skew:
        yield warning("settings", "MAX_CLOCK_SKEW=0: a wrong clock is not noticed", "set it to 60")
    if settings.stream_ttl < 300:
        yield warning(
            "settings",
            f"STREAM_TTL={settings.stream_ttl}: clients cannot resume after that many seconds",
            "set it to 3600",
        )
