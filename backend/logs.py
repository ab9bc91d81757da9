"""Structured logs: one line per change of state, with ids bound once per request or turn, and without secrets."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from backend.errors import NoMaster

REPEAT_AFTER, OTHER_AFTER = 60.0, 5.0
"""Seconds until a lasting trouble is logged again: with the same error, or with another one."""
_REFUSALS = ("ACCESS_REFUSED", "NOAUTH", "WRONGPASS", "invalid username-password", "Authentication required")
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (C0, C1), line and paragraph separators, and those that change the direction of the text."""
_SAYS = re.compile(
    r"\b(?:CLUSTER|CLUSTERDOWN|CROSSSLOT|LOADING|MASTERDOWN|MISCONF|MOVED|NOGROUP|NOPERM|NOREPLICAS|OOM|READONLY"
    r"|UNBLOCKED|WRONGTYPE)\b.*"
)
"""Matches what a Redis server says, from the error's code on."""
MAX_REASON = 200
"""Characters of a server's words in a log line."""
_bound: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("bound", default=None)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


@contextmanager
def bound(**ids: str) -> Iterator[None]:
    """Adds ids to every line logged in this block, by this job and by jobs that it starts."""
    token = _bound.set({**(_bound.get() or {}), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def _members(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _PLAIN}
    return {**(_bound.get() or {}), **extra}


class JsonLines(logging.Formatter):
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
        return _encoded(line)


def _encoded(line: dict[str, Any]) -> str:
    """Returns a line as JSON. Members that JSON cannot hold, such as lone surrogates and huge integers, become text."""
    try:
        return orjson.dumps(line, default=str).decode()
    except orjson.JSONEncodeError:
        return json.dumps({name: value if _is_plain(value) else _shown(value) for name, value in line.items()})


def _is_plain(value: object) -> bool:
    return isinstance(value, str | bool | None)


def _shown(value: object) -> str:
    try:
        return ascii(value)
    except Exception:  # noqa: BLE001 - the boundary of a foreign __repr__: a line must not be lost because of it
        return f"<{type(value).__name__}>"


class _ConsoleLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{key}={_on_one_line(str(value))}" for key, value in _members(record).items())
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {record.levelname.lower():7} {_on_one_line(record.getMessage())}"
        trace = f"\n{_escaped(self.formatException(record.exc_info))}" if record.exc_info else ""
        return line + (f"  {ids}" if ids else "") + trace


def _on_one_line(text: str) -> str:
    """Returns the text with control characters escaped, so that no value can look like another line."""
    return _escaped(text).replace("\n", "\\n")


def _escaped(text: str) -> str:
    """Escapes everything that a terminal obeys or shows as something else, except line breaks: a trace has some."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Trouble:
    """A problem that may last. It is logged when it begins, when its error changes, once a minute, and when it is over.

    `about` goes into each line, to show where to look. Several jobs may share one.
    """

    def __init__(self, logger: logging.Logger, what: str, **about: str) -> None:
        self._logger = logger
        self._what = what
        self._about = about
        self._error: str | None = None
        self._logged_at = 0.0

    def met(self, error: str, **now: object) -> None:
        """Notes the problem. `now` goes into the line like `about`, and does not count as another error."""
        since = time.monotonic() - self._logged_at
        if self._error is None or since >= REPEAT_AFTER or (error != self._error and since >= OTHER_AFTER):
            self._logged_at, self._error = time.monotonic(), error
            self._logger.warning(self._what, extra={**self._about, **now, "error": error})

    def over(self) -> None:
        if self._error is not None:
            self._error = None
            self._logger.info("%s: over", self._what, extra=self._about)


def place_of(dsn: str) -> str:
    """Returns the host and port, or the socket path, of a URL, without its login."""
    url = urlsplit(dsn)
    return url.netloc.rpartition("@")[2] or url.path


def why_away(error: BaseException | None) -> str:
    """Returns a short reason, without secrets, why a server cannot be used."""
    if any(word in str(error) for word in _REFUSALS) or "Authentication" in type(error).__name__:
        return "the login was refused"
    silent, cause = False, error
    while cause is not None:
        if words := _words_of(cause):
            return words
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno)
        silent = silent or isinstance(cause, TimeoutError)
        cause = cause.__cause__ or cause.__context__
    return "it does not answer" if silent else type(error).__name__


def words_of_redis(error: BaseException | None) -> str | None:
    """Returns what Redis said in an error or in one of its causes, with the code first. None if it said nothing."""
    while error is not None:
        if said := _SAYS.search(str(error)):
            return said.group()[:MAX_REASON]
        error = error.__cause__ or error.__context__
    return None


def _words_of(error: BaseException) -> str | None:
    """Returns what a server, or its certificate, says in an error. Returns None if it says nothing that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no reason'}"
    if isinstance(getattr(error, "sqlstate", None), str):  # an error of PostgreSQL; details are not in its first line
        return str(error).partition("\n")[0][:MAX_REASON]
    if isinstance(error, NoMaster):
        return str(error)[:MAX_REASON]
    said = _SAYS.search(str(error))
    return said.group()[:MAX_REASON] if said else None


def configure_logs(level: str, form: str) -> None:
    """Sends all log lines to standard error. `form` is json, or console for reading in a terminal."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(JsonLines() if form == "json" else _ConsoleLines())
    root = logging.getLogger()
    root.handlers[:] = [to_stderr]
    root.setLevel(level)
    for repeating in ("aiormq", "aio_pika"):  # they log every failed try; `Trouble` logs the outage
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    for telling in ("mcp", "client"):  # the MCP SDK logs whole messages of servers
        logging.getLogger(telling).setLevel(logging.CRITICAL)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "anthropic", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
