"""Names of servers' tools in prompts: legal for every provider, and unique whichever servers are connected."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

MAX_NAME_CHARS = 64
_MAX_PREFIX = 32


class Names:
    """Names tools `<server>_<tool>`, with a hash behind it where two tools could get the same name.

    `servers` are the names in the file, `own` those of CoPilot's tools. A name depends on these alone, and not on which
    servers are connected. So a call in the history never reaches another server.
    """

    def __init__(self, servers: Sequence[str], own: Collection[str] = ()) -> None:
        self._own = frozenset(own)
        plain = {server: _cleaned(server) for server in servers}
        counts = Counter(plain.values())
        self._prefixes = {
            server: f"{name}_" if len(name) <= _MAX_PREFIX and counts[name] == 1 else f"{name[:23]}_{_digits(server)}_"
            for server, name in plain.items()
        }

    def prefix(self, server: str) -> str:
        return self._prefixes[server]

    def of(self, server: str, tools: Iterable[str]) -> dict[str, str]:
        """Returns the name in prompts of each tool of a server."""
        prefix = self._prefixes[server]
        plain = {tool: prefix + _cleaned(tool) for tool in tools}
        counts = Counter(plain.values())
        names: dict[str, str] = {}
        for tool, wanted in plain.items():
            taken = len(wanted) > MAX_NAME_CHARS or counts[wanted] > 1 or wanted in self._own
            name = f"{wanted[: MAX_NAME_CHARS - 9]}_{_digits(tool)}" if taken else wanted
            other = f"{prefix}{_digits(tool)}_{_cleaned(tool)}"[:MAX_NAME_CHARS]
            names[tool] = name if self.may_be(server, name) else other
        return names

    def may_be(self, server: str, name: str) -> bool:
        """Returns True if a tool of the server may have that name. It must not begin like another server's names."""
        prefix = self._prefixes[server]
        longer = (other for other in self._prefixes.values() if len(other) > len(prefix))
        return name.startswith(prefix) and len(name) > len(prefix) and not any(map(name.startswith, longer))


def _cleaned(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
