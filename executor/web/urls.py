"""The URLs that may be fetched. The address behind a name is checked later, when it is connected to."""

from __future__ import annotations

import re
from collections.abc import Container

from yarl import URL

from executor.web.failures import WebFailure

MAX_URL = 2_000
"""Characters."""
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
PORTS = frozenset({80, 443})


def page_url(text: str, ports: Container[int] = PORTS, base: URL | None = None) -> URL:
    """Returns the URL without its fragment, resolved against `base`. Raises WebFailure if it may not be fetched."""
    try:
        url = URL(text.strip())
        url = (base.join(url) if base is not None else url).with_fragment(None)
        port = url.port
    except (ValueError, TypeError, IndexError):  # yarl raises the last one for some unfinished hosts
        raise _refused("This is not a valid web address.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise _refused("Only addresses that begin with http:// or https:// can be fetched.")
    if _HOST.fullmatch(url.raw_host or "") is None:
        raise _refused("This is not a valid web address.")
    if len(str(url)) > MAX_URL:
        raise _refused(f"An address may have {MAX_URL} characters.")
    if url.user is not None or url.password is not None:
        raise _refused("An address must not hold a user name or a password.")
    if port not in ports:
        raise _refused("Only the ports 80 and 443 can be fetched.")
    return url


def _refused(why: str) -> WebFailure:
    return WebFailure("invalid_url", why)
