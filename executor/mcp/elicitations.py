"""Elicitations: what a server asks the user, checked and in the form of a question to the user."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson
from mcp_types import ElicitRequest, ElicitRequestParams, ElicitRequestURLParams, InputRequests

from backend.chat.models import Json, is_too_deep
from backend.chat.protocol.tool_outputs import REFUSED_KEYS
from backend.chat.questions import Question, QuestionKind
from backend.chat.questions.forms import form_of
from backend.errors import ValidationFailed
from executor.llm.clean_text import clean
from executor.mcp.failures import without_secrets
from executor.mcp.server_entry import Server

MAX_WORDS, MAX_URL = 4_000, 2_048
"""Characters of a question and of a link."""
MAX_FORM = 65_536
"""Bytes of a form."""
_NAME, _NUMBER = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?"), re.compile(r"[0-9]+|0x[0-9a-f]*")


def links_to_open(elicitations: Sequence[ElicitRequestURLParams]) -> InputRequests:
    """Returns the links of a refused call as requests, each link once."""
    once = {one.url: one for one in elicitations}
    return {str(number): ElicitRequest(params=one) for number, one in enumerate(once.values())}


def question_of(params: ElicitRequestParams, server: Server) -> Question:
    """Returns the question as pages show it. Raises ValidationFailed."""
    words = without_secrets(clean(params.message).strip(), server.secrets)[:MAX_WORDS]
    name = clean(server.name)
    if isinstance(params, ElicitRequestURLParams):
        return Question(QuestionKind.ELICITATION, words, server=name, url=checked_url(params.url))
    if is_too_deep(params.requested_schema):
        raise ValidationFailed("The form is nested too deeply.")
    form = form_of(params.requested_schema)
    _check_storable(form)
    return Question(QuestionKind.ELICITATION, words, server=name, form=form)


def _check_storable(form: Json) -> None:
    try:
        text = orjson.dumps(form)
    except TypeError:
        raise ValidationFailed("The form holds values that cannot be kept.") from None
    if b"\\u0000" in text or not REFUSED_KEYS.isdisjoint(form["properties"]) or len(text) > MAX_FORM:
        raise ValidationFailed("The form holds names or values that cannot be kept.")


def checked_url(url: str) -> str:
    """Returns the link if a page may show it: https, or http on this machine, without a user. Raises ValidationFailed.

    Its host is in ASCII and without escapes, so that it cannot look like another one, and browsers can read it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValidationFailed("The link is not a URL.") from None
    if (
        len(url) > MAX_URL
        or not re.fullmatch(r"[!-~]+", url)
        or "\\" in url
        or not _is_readable(host)
        or "@" in parts.netloc
    ):
        raise ValidationFailed("The link is not a URL that can be shown.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValidationFailed("The link must begin with https://.")
    return url


def _is_readable(host: str) -> bool:
    """Returns True for a host that browsers show unchanged: one that ends with a number becomes an address."""
    try:
        return bool(ipaddress.ip_address(host)) and "%" not in host
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        return _NAME.fullmatch(host) is not None and _NUMBER.fullmatch(last) is None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
