"""Structured logs: one line per change of state, with ids bound once per request or turn. Nothing secret in them."""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

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


def configure_logs(level: str, form: str) -> None:
    """Sends every logger to standard error, as JSON lines or for people (`form` is json or console)."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_JsonLines() if form == "json" else _ConsoleLines())
    root = logging.getLogger()
    root.handlers[:] = [to_stderr]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "aiormq", "aio_pika", "openai", "anthropic", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
