"""Addresses of the stores: every kind of host makes one that the clients understand and that messages can name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from yarl import URL

from backend.config import Settings
from backend.errors import ConfigError
from backend.postgres_address import Address
from backend.rabbitmq_address import parse_rabbitmq_url
from backend.redis_address import parse_redis_url, place_of_redis, seeds_of, sentinels_of
from executor.web.failures import WebFailure
from executor.web.urls import page_url

SECRET = "s3cr3t@/:?#,"
KINDS = [
    ("db.internal", ["db.internal:7000"]),
    ("10.0.0.1", ["10.0.0.1:7000"]),
    ("::1", ["[::1]:7000"]),
    ("[::1]", ["[::1]:7000"]),
    ("a,b", ["a:7000", "b:7000"]),
    ("a, ::1", ["a:7000", "[::1]:7000"]),
]


def with_hosts(host: str) -> Settings:
    password = SecretStr(SECRET)
    return Settings(
        db_host=host, db_port=7000, db_user="a/b", db_pass=password, db_name="x y", db_schema="a&b",
        rabbitmq_host=host if not host.startswith("/") else None, rabbitmq_port=7000, rabbitmq_default_pass=password,
        redis_host=host if "," not in host and not host.startswith("/") else None, redis_port=7000,
        redis_password=password,
    )  # fmt: skip


@pytest.mark.parametrize(("host", "places"), KINDS)
def test_every_kind_of_host_makes_an_address(host: str, places: list[str]) -> None:
    settings = with_hosts(host)
    postgres = Address.parse(settings.database_dsn)
    assert (postgres.place, postgres.database, postgres.schema) == (",".join(places), "x y", "a&b")
    assert [f"{_bracketed(url.host)}:{url.port}" for url in parse_rabbitmq_url(settings.rabbitmq_dsn)] == places
    if len(places) == 1:
        redis = parse_redis_url(settings.redis_dsn)
        assert (redis["host"], redis["port"], redis["password"]) == (host.strip("[]"), 7000, SECRET)
        assert place_of_redis(settings.redis_dsn) == places[0]


def _bracketed(host: str | None) -> str:
    return f"[{host}]" if ":" in (host or "") else str(host)


def test_the_folder_of_a_socket_makes_an_address_with_its_port() -> None:
    address = Address.parse(with_hosts("/run/my postgres").database_dsn)
    assert (address.place, address.database, address.schema) == ("/run/my postgres", "x y", "a&b")
    assert address.driver_options.items() >= {"host": ["/run/my postgres"], "port": 7000}.items()


@pytest.mark.parametrize(
    ("dsn", "place", "options"),
    [
        ("postgresql://u:p@h:1/db", "h:1", {}),
        ("postgresql:///db", "the default socket", {}),
        ("postgresql:///db?host=/tmp", "/tmp", {"host": ["/tmp"], "port": 5432}),
        ("postgresql://u:p@localhost:7000/db?host=/tmp", "/tmp", {"host": ["/tmp"], "port": 7000}),
        ("postgresql://u:p@/db?host=/tmp&port=7000", "/tmp", {"host": ["/tmp"], "port": 7000}),
        ("postgresql://u:p@/db?host=a,b&port=1,2", "a,b", {"host": ["a", "b"], "port": [1, 2]}),
        ("postgresql://u:p@%2Frun%2Fpg:7000/db", "/run/pg:7000", {}),
        ("postgresql://u:p%40@[::1]:1,b:2/db", "[::1]:1,b:2", {}),
    ],
)
def test_every_url_of_postgres_can_be_named_without_its_login(dsn: str, place: str, options: dict[str, Any]) -> None:
    address = Address.parse(dsn)
    assert (address.place, address.database) == (place, "db")
    given = address.driver_options
    assert {name: given[name] for name in ("host", "port") if name in given} == options


@pytest.mark.parametrize("port", ["x", "1,x"])
def test_a_port_that_is_no_number_is_a_wrong_setting(port: str) -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: "):
        Address.parse(f"postgresql:///db?host=/tmp&port={port}")


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("redis://:a%40b@127.0.0.1:6379/0", "127.0.0.1:6379"),
        ("rediss://user:p@[::1]/0", "[::1]:6379"),
        ("redis:///0", "localhost:6379"),
        ("redis://:p@/0", "localhost:6379"),
        ("unix://:p@/tmp/redis.sock?db=1", "/tmp/redis.sock"),
        ("unix:///tmp/redis.sock?password=p", "/tmp/redis.sock"),
        ("redis+sentinel://:p@a:1,b,[::1]/my%20master/2", "my master at a:1,b:26379,[::1]:26379"),
        ("rediss+cluster://u:p@a:1,b,[::1]/0?ssl_cert_reqs=none", "cluster at a:1,b:6379,[::1]:6379"),
    ],
)
def test_every_url_of_redis_can_be_named_without_its_login(dsn: str, place: str) -> None:
    assert place_of_redis(dsn) == place


def test_a_url_of_sentinels_has_two_logins_and_one_tls() -> None:
    dsn = "rediss+sentinel://u:p%40@a:1,b/mymaster/2?sentinel_password=s&ssl_cert_reqs=none&ssl_check_hostname=false"
    master, sentinels = parse_redis_url(dsn), sentinels_of(dsn)
    assert sentinels is not None
    assert (sentinels.places, sentinels.service) == ((("a", 1), ("b", 26379)), "mymaster")
    assert (master["username"], master["password"], master["db"]) == ("u", "p@", 2)
    assert master.keys().isdisjoint({"host", "port"}), "they are asked for"
    tls = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert master.items() >= tls.items()
    assert dict(sentinels.options) == {"password": "s", "ssl": True, "protocol": 2, **tls}
    assert "p@" not in repr(sentinels)
    assert sentinels_of("redis://a") is None


def test_a_url_of_a_cluster_names_nodes_and_one_login() -> None:
    dsn = "valkeys+cluster://u:p%40@a:1,b?ssl_check_hostname=false"
    address, seeds = parse_redis_url(dsn), seeds_of(dsn)
    assert seeds is not None
    assert seeds.places == (("a", 1), ("b", 6379))
    assert (address["username"], address["password"], address["ssl_check_hostname"]) == ("u", "p@", False)
    assert address.keys().isdisjoint({"host", "port", "db"}), "they are asked for"
    assert sentinels_of(dsn) is None
    assert seeds_of("redis://a") is None


@pytest.mark.parametrize(
    "dsn",
    [
        "redis+sentinel://:s3cr3t@a",
        "redis+sentinel://:s3cr3t@a,/mymaster",
        "redis+sentinel://:s3cr3t@a:x/mymaster",
        "redis+sentinel://:s3cr3t@a/mymaster/one",
        "unix+sentinel://:s3cr3t@/mymaster",
        "redis://:s3cr3t@a,b",
        "redis://a?sentinel_password=s3cr3t",
        "redis://:s3cr3t@a/one",
        "redis+cluster://:s3cr3t@",
        "redis+cluster://:s3cr3t@a,",
        "redis+cluster://:s3cr3t@a:x",
        "redis+cluster://:s3cr3t@a/1",
        "unix+cluster://:s3cr3t@a",
    ],
)
def test_a_wrong_url_of_redis_is_told_without_its_login(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL: ") as told:
        sentinels_of(dsn)
    assert "s3cr3t" not in str(told.value)


def test_a_host_that_the_library_cannot_split_is_a_wrong_setting_and_a_refused_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def split(url: str) -> URL:
        raise IndexError(url)  # as yarl 1.25 does for some hosts that end too early

    monkeypatch.setattr("backend.rabbitmq_address.URL", split)
    monkeypatch.setattr("executor.web.urls.URL", split)
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_rabbitmq_url("amqp://host")
    with pytest.raises(WebFailure, match="not a valid web address"):
        page_url("https://host")
