"""The hosts that this server answers to, and the pages that may call it without a token.

A browser sends requests of any web page to a server on the user's own machine. Two checks keep foreign pages out where
no token is needed:

- *Host*. A page may have its name resolve to 127.0.0.1 (DNS rebinding); its requests then count as same-origin, but
  their Host is the page's name.
- *Origin*. A page of another origin may send some requests without asking (CORS only hides the response). The rule is
  that of Go's `http.CrossOriginProtection` (1.25): `Sec-Fetch-Site` decides if it is there, otherwise `Origin` must be
  the request's own host. Programs that are no browsers send neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from backend.chat.oauth.values import CALLBACK, SIGN_IN
from backend.config import Settings
from backend.errors import ForeignOrigin, HostNotAllowed

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_PROBES = frozenset(f"{prefix}/health{path}" for prefix in ("", "/api/chat") for path in ("", "/live", "/ready"))
_VISITED_PATHS = (SIGN_IN, CALLBACK)
"""Pages to which other sites lead the user. They trust a cookie of their own, and no address or mode."""
_CALLED_PATHS = ("/api/", "/v1/")


class Origins:
    """The settings ALLOWED_HOSTS, PLATFORM_BASE_URL and FRONTEND_BASE_URL, as checks of a request's headers."""

    def __init__(self, settings: Settings) -> None:
        pages = parts_of(settings.frontend_base_url)
        given = {_without_dot(host) for host in parts_of(settings.allowed_hosts)}
        self._mode = settings.auth_mode
        self._any_host = "*" in given or (not given and self._mode != "none")
        self._suffixes = tuple(host[1:] for host in given if host.startswith("*."))
        own = {settings.host} - set(_ANY_ADDRESS)
        self._hosts = given | own | {urlsplit(url).hostname or "" for url in (settings.platform_base_url, *pages)}
        self._origins = {origin_of(url) for url in (settings.platform_base_url, *pages)}

    def check_host(self, path: str, headers: Headers) -> None:
        """Raises HostNotAllowed. Probes may ask for the health of the process by any name."""
        given = headers.getlist("host")
        if not self._any_host and path not in _PROBES and not all(map(self._is_allowed, given)):
            raise HostNotAllowed

    def check_origin(self, path: str, headers: Headers) -> None:
        """Raises ForeignOrigin for a call of a foreign page that needs no token."""
        if path in _VISITED_PATHS:
            return
        if self._needs_no_token(headers) and path.startswith(_CALLED_PATHS) and self._is_foreign(headers):
            raise ForeignOrigin

    def _is_allowed(self, header: str) -> bool:
        host = _host_of(header)
        return host in self._hosts or host.endswith(self._suffixes) or _is_this_machine(host)

    def _needs_no_token(self, headers: Headers) -> bool:
        if self._mode == "optional":
            return "authorization" not in headers and "x-api-key" not in headers
        return self._mode == "none"

    def _is_foreign(self, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.lower() in self._origins:
            return False
        if site is not None:
            return site not in ("same-origin", "none")
        return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def parts_of(setting: str) -> Iterable[str]:
    """Returns the parts of a setting that are separated by commas."""
    return [part.strip() for part in setting.split(",") if part.strip()]


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _host_of(header: str) -> str:
    """Returns the name or address of a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return _without_dot(header.partition(":")[0])


def _without_dot(host: str) -> str:
    return host.removesuffix(".").lower()


def _is_this_machine(host: str) -> bool:
    """Returns True for names and addresses of the loopback interface, which no name server can give to a page."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
