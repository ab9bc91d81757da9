"""Structured logs: one line per change of state, with ids bound once per request or turn. Nothing secret in them."""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

SAY_AGAIN, OTHER_TROUBLE = 60.0, 5.0
_REFUSALS = ("ACCESS_REFUSED", "NOAUTH", "WRONGPASS", "invalid username-password", "Authentication required")
_bound: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("bound", default=None)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


@contextmanager
def bound(**ids: str) -> Iterator[None]:
    """Adds ids to every line that is logged inside, in this job and in jobs started from it."""
    token = _bound.set({**(_bound.get() or {}), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def _members(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _PLAIN}
    return {**(_bound.get() or {}), **extra}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_members(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _ConsoleLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{key}={value}" for key, value in _members(record).items())
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {record.levelname.lower():7} {record.getMessage()}" + (f"  {ids}" if ids else "")
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class Trouble:
    """Something that may be wrong for long: said when it begins, when it becomes another trouble, once a minute while
    it lasts, and when it is over. `about` says where to look; whoever shares one may meet it at once with others."""

    def __init__(self, logger: logging.Logger, what: str, **about: str) -> None:
        self._logger = logger
        self._what = what
        self._about = about
        self._why: str | None = None
        self._said = 0.0

    def met(self, why: str) -> None:
        since = time.monotonic() - self._said
        if self._why is None or since >= SAY_AGAIN or (why != self._why and since >= OTHER_TROUBLE):
            self._said, self._why = time.monotonic(), why
            self._logger.warning(self._what, extra={**self._about, "why": why})

    def over(self) -> None:
        if self._why is not None:
            self._why = None
            self._logger.info("%s: over", self._what, extra=self._about)


def place_of(dsn: str) -> str:
    """Host and port, or the socket, that a URL names; nothing of its login."""
    url = urlsplit(dsn)
    return url.netloc.rpartition("@")[2] or url.path


def why_away(error: BaseException | None) -> str:
    """Why a server does not serve us, in words; a refused login is named as such."""
    if any(word in str(error) for word in _REFUSALS) or "Authentication" in type(error).__name__:
        return "it refuses the login"
    silent, cause = False, error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno)
        silent = silent or isinstance(cause, TimeoutError)
        cause = cause.__cause__ or cause.__context__
    return "it does not answer" if silent else type(error).__name__


def configure_logs(level: str, form: str) -> None:
    """Sends every logger to standard error, as JSON lines or for people (`form` is json or console)."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_JsonLines() if form == "json" else _ConsoleLines())
    root = logging.getLogger()
    root.handlers[:] = [to_stderr]
    root.setLevel(level)
    for repeating in ("aiormq", "aio_pika"):  # a line a try while the broker is away: `Trouble` says it
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    for telling in ("mcp", "client"):  # the MCP SDK's: what servers sent, whole
        logging.getLogger(telling).setLevel(logging.CRITICAL)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "anthropic", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
