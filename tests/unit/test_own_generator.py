"""Tests of the generator and platform that `make run` starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from backend.config import Settings
from backend.embedded.generator import own_generator


def port_of(folder: Path) -> int:
    own = own_generator(Settings(data_dir=folder), "http://127.0.0.1:8006")
    assert own is not None
    assert own.environment["PLATFORM_URL"] == f"http://127.0.0.1:{own.port}/api/v1"
    return own.port


def test_the_port_stays_the_same_while_it_is_free(tmp_path: Path) -> None:
    first = port_of(tmp_path)
    assert port_of(tmp_path) == first
    with socket.create_server(("127.0.0.1", first)):
        other = port_of(tmp_path)
    assert other != first
    assert port_of(tmp_path) == other


@pytest.mark.parametrize("kept", ["", "nonsense", "-1", "99999", "\udcff"])
def test_a_file_without_a_port_is_replaced(tmp_path: Path, kept: str) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "port").write_bytes(kept.encode("utf-8", "surrogateescape"))
    port = port_of(tmp_path)
    assert (tmp_path / "platform" / "port").read_text() == str(port)
