"""Parses DATABASE_URL, and decides which of its options go to the driver, to the server or nowhere."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from backend.errors import ConfigError

_SETTINGS = {
    "timezone": "UTC",
    "jit": "off",  # the statements are short; compiling them costs more than it saves
    "idle_in_transaction_session_timeout": "3s",  # a frozen process loses its row locks after that time
}
_NAME = {"application_name": "copilot"}
_IGNORED = frozenset(
    {
        "connect_timeout", "connection_limit", "pool_timeout", "socket_timeout", "sslaccept",  # Prisma
        "application_name", "fallback_application_name", "gssdelegation", "keepalives", "keepalives_count",
        "keepalives_idle", "keepalives_interval", "load_balance_hosts", "max_protocol_version", "min_protocol_version",
        "sslcertmode", "sslcompression", "sslsni", "tcp_user_timeout",  # libpq
        "supa", "uselibpqcompat", "workaround",  # Supabase, node-postgres, Vercel
    }
)  # fmt: skip
"""Options for other clients. A connection that ignores them is no weaker."""
_UNMET = {
    "gssencmode": frozenset({"disable", "prefer"}),
    "require_auth": frozenset[str](),
    "sslcrldir": frozenset[str](),
    "replication": frozenset({"false", "off", "no", "0"}),
}
"""Options of libpq that the driver does not know, with the values that change nothing. Any other value is refused."""
_SSLMODES = {"no-verify": "require", "true": "require", "1": "require", "false": "disable", "0": "disable"}
"""Other clients' words for libpq's modes."""
_TRUE = frozenset({"true", "1", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Address:
    """A server and a database. `dsn` is a DSN that asyncpg understands; `hosts` and `ports` win over its host and port.

    `schema` is Prisma's `?schema=`. `pooled` says that a pooler stands before the server, which may give every
    transaction another connection. `statements` is the number of prepared statements that a connection keeps. `system`
    says that the certificates of the operating system are trusted. `weaker` names an option that cannot be met.
    """

    dsn: str
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    schema: str | None = None
    pooled: bool = False
    statements: int = 100
    system: bool = False
    weaker: str | None = None

    @classmethod
    def parse(cls, dsn: str) -> Address:
        """Parses a DSN. Raises ConfigError unless it is a postgresql:// URL whose options can be met."""
        try:
            url = urlsplit(dsn)
            options = dict(parse_qsl(url.query, keep_blank_values=True))
        except ValueError:
            raise ConfigError("DATABASE_URL: not a URL") from None
        if url.scheme not in ("postgresql", "postgres"):
            raise ConfigError("DATABASE_URL: must begin with postgresql://")
        for name, harmless in _UNMET.items():
            if options.pop(name, None) not in (None, *harmless):
                raise ConfigError(f"DATABASE_URL: the option {name} is not supported")
        hosts = tuple(filter(None, options.pop("host", "").split(",")))  # as in libpq and Prisma, they win
        ports = _ports(options.pop("port", ""), url) if hosts else ()
        pooled = options.pop("pgbouncer", "").lower() in _TRUE
        statements = _statements(options, 0 if pooled else 100)
        schema = options.pop("schema", None)
        weaker = "channel_binding" if options.pop("channel_binding", None) == "require" else None
        system = _adapt_tls(options)
        query = urlencode({name: value for name, value in options.items() if name not in _IGNORED})
        dsn = urlunsplit(url._replace(query=query))
        return cls(dsn, hosts, ports, schema, pooled, statements, system, weaker)

    @property
    def server_settings(self) -> dict[str, str]:
        """The settings that a connection begins with. A pooler refuses most, so it gets only the name."""
        return _NAME if self.pooled else {**_NAME, **self._session}

    @property
    def local_settings(self) -> str:
        """The statement that gives a transaction over a pooler its settings. (SET LOCAL would quote a path again.)"""
        calls = (f"set_config('{name}', '{_escaped(value)}', true)" for name, value in self._session.items())
        return f"SELECT {', '.join(calls)}"

    @property
    def _session(self) -> dict[str, str]:
        if self.schema is None:
            return _SETTINGS
        return {**_SETTINGS, "search_path": quoted(self.schema)}

    @property
    def driver_options(self) -> dict[str, Any]:
        """The arguments of `asyncpg.connect` and `asyncpg.create_pool` beside the DSN and the settings."""
        options: dict[str, Any] = {"statement_cache_size": self.statements}
        if self.hosts:
            options |= {"host": list(self.hosts), "port": list(self.ports) if len(self.ports) > 1 else self.ports[0]}
        if self.system:
            options["ssl"] = ssl.create_default_context()
        return options

    def over_a_pooler(self) -> Address:
        """Returns this address for a pooler in transaction mode: without prepared statements."""
        return replace(self, pooled=True, statements=0)

    def other_database(self, name: str) -> Address:
        """Returns the address of another database on the same server, without a schema."""
        return replace(self, dsn=urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}")), schema=None)

    @property
    def database(self) -> str:
        return unquote(urlsplit(self.dsn).path.lstrip("/"))

    @property
    def place(self) -> str:
        """The hosts with their ports, or the folders of sockets, for messages; without the login."""
        if self.hosts:
            return ",".join(self.hosts)
        return unquote(urlsplit(self.dsn).netloc.rpartition("@")[2]) or "the default socket"

    @property
    def where(self) -> str:
        return f"PostgreSQL at {self.place}"


def quoted(name: str) -> str:
    """Returns a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _escaped(value: str) -> str:
    return value.replace("'", "''")


def _ports(option: str, url: SplitResult) -> tuple[int, ...]:
    """Returns the ports for the hosts of the options: those of the options, else that of the URL."""
    try:
        return tuple(map(int, option.split(","))) if option else (url.port or 5432,)
    except ValueError:
        raise ConfigError("DATABASE_URL: a port must be a number") from None


def _statements(options: dict[str, str], default: int) -> int:
    """Takes the size of the cache of prepared statements out of the options."""
    size = options.pop("prepared_statement_cache_size", None)  # SQLAlchemy's name
    size = options.pop("statement_cache_size", size)
    if size is None:
        return default
    if not size.isascii() or not size.isdigit():
        raise ConfigError("DATABASE_URL: statement_cache_size must be a number")
    return min(int(size), 1000)


def _adapt_tls(options: dict[str, str]) -> bool:
    """Translates other clients' words about TLS. Returns True if the system's certificates are to be trusted."""
    if "ssl" in options:
        options.setdefault("sslmode", options["ssl"])
        del options["ssl"]
    if "sslmode" in options:
        options["sslmode"] = _SSLMODES.get(options["sslmode"].lower(), options["sslmode"])
    mode = options.get("sslmode")
    if options.get("sslrootcert") == "system":
        if mode not in (None, "verify-full"):  # as libpq, which permits nothing weaker
            raise ConfigError("DATABASE_URL: sslrootcert=system needs sslmode=verify-full")
        del options["sslrootcert"]
        options.pop("sslmode", None)
        return True
    if mode in ("verify-ca", "verify-full") and not options.get("sslrootcert"):
        raise ConfigError(f"DATABASE_URL: sslmode={mode} needs sslrootcert: a file, or system with verify-full")
    return False
