"""The sentence of a provider about an error, fit for the operator's log: one line, short, without secrets.

It is never shown to users. Names of models and settings and the hosts of addresses stay, because operators need them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.history import compact_json

MAX_WORDS = 300  # characters
MASK = "[REDACTED]"
NO_KEY = "none"
"""The key that is sent to servers that need none. It is never masked: it is no secret, and a common word."""
_READ_AT_MOST = 20_000  # characters
_UNSEEN = re.compile(r"(?is)<(script|style)\b.*?(?:</\1>|\Z)|<head\b.*?(?:</head>|(?=<body\b)|\Z)|<!--.*?(?:-->|\Z)")
"""Matches what a page does not show. Without an end it matches to the end of the page, so it is searched only once."""
_TAG = re.compile(r"<[^<>]{0,2000}>")
_TITLE = re.compile(r"(?i)<title[^<>]*>([^<]*)")
_USER_INFO = re.compile(r"(?<=://)[^\s/@]+@")
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#]\S*", re.IGNORECASE)
_NAMED = re.compile(
    r"(?i)\b(authorization|(?:x-)?api[ _-]?key|access[ _-]?key|access[ _-]?token|token|secret|password|passwd|bearer)"
    r"(\b[\"']?\s*(?:provided|is|was)?\s*[:=]\s*[\"']?|\s+)((?:bearer\s+)?[^\s\"',;(){}\[\]]+)"
)
_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|hf|ghp|gho|nvapi|pplx|r8|fw|tgp|csk|lsv2)[-_][\w.*-]{5,}"
    r"|(?:AIza|AKIA|ASIA|ya29\.|eyJ)[\w.*-]{8,}|(?:org|proj|key|acct)[-_](?=[\w-]*\d)[\w-]{8,})"
)
_OPAQUE = re.compile(r"(?=[\w+/=.-]*\d)(?=[\w+/=.-]*[A-Za-z])[\w+/=-]{32,}")


def sentence_of(error: Json, secrets: Iterable[str] = ()) -> str:
    """Returns what an error object or a body says, which may be empty. `secrets` are hidden wherever they stand."""
    return masked(_text_of(error), secrets)


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Returns one line of at most MAX_WORDS characters in which secrets and keys are hidden."""
    text = clean(text[:_READ_AT_MOST])
    for secret in _hidden(secrets):
        text = text.replace(secret, MASK)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[: 4 * MAX_WORDS]
    line = _QUERY.sub(r"\1", _USER_INFO.sub("", line))
    line = _NAMED.sub(_hide_value, line)
    line = _OPAQUE.sub(MASK, _KEY.sub(MASK, line))
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"


def masked_again(said: str, secrets: Sequence[str]) -> str:
    """Hides further secrets in a result of `masked`, whose cut may have split one of them."""
    if said.endswith("…"):
        begun = (
            length
            for secret in _hidden(secrets)
            for length in range(len(secret) - 1, 3, -1)
            if said[:-1].endswith(secret[:length])
        )
        if length := max(begun, default=0):
            said = said[: -1 - length] + "…"
    return masked(said, secrets)


def secrets_in(header: str) -> list[str]:
    """Returns what is to be hidden of a header's value: all of it, and its parts, since an error may quote one alone.

    Parts are the credentials after a scheme (`Bearer`, `Basic`), and the pairs and values of a cookie.
    """
    pieces = [header, *re.split("[;,]", header)]
    parts = [part for piece in pieces for part in (piece, *piece.split(None, 1)[1:], piece.partition("=")[2])]
    return list(dict.fromkeys(part.strip(' \t"') for part in parts if part.strip()))


def _hidden(secrets: Iterable[str]) -> list[str]:
    """Returns the secrets, the longest first: one may be a part of another."""
    return sorted((secret for secret in secrets if len(secret) >= 4 and secret != NO_KEY), key=len, reverse=True)


def is_html(body: Json) -> bool:
    """Returns True for the text of a web page."""
    return (
        isinstance(body, str) and re.match(r"\s*(<!doctype html|<html|<\?xml|<!--|<head|<body)", body, re.I) is not None
    )


def _hide_value(match: re.Match[str]) -> str:
    """Hides the word after the name of a secret. A plain word after a blank is prose: `token limit`, `API key not`."""
    value = match[3]
    by_sign = ":" in match[2] or "=" in match[2]
    if not by_sign and match[1].lower() != "bearer" and not re.search(r"(?=.*[\d*]).{12}", value):
        return match[0]
    return f"{match[1]}{match[2]}{MASK}"


def _text_of(error: Json) -> str:
    if isinstance(error, list):
        error = error[0] if len(error) == 1 else error
    if isinstance(error, dict) and isinstance(error.get("error"), dict | list | str):
        return _text_of(error["error"])
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error.get("title")
        more = error.get("metadata") or error.get("failed_generation") or ""
        if message:
            return " ".join(_plain(piece) for piece in (message, more) if piece)
    return _plain(error) if error else ""


def _plain(value: Json) -> str:
    if not isinstance(value, str):
        return compact_json(value)
    if not is_html(value):
        return value
    page = value[:_READ_AT_MOST]
    title = _TITLE.search(page)
    return f"a web page: {title[1] if title else ''} {_TAG.sub(' ', _UNSEEN.sub(' ', page))}"
