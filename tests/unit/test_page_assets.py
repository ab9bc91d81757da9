"""Tests of the files of the built page that the API serves."""

from __future__ import annotations

import gzip
from pathlib import Path

from backend.api.routes.page import read_assets


def test_without_a_built_page_there_are_no_assets(tmp_path: Path) -> None:
    assert read_assets(tmp_path / "page") == {}


def test_the_files_of_the_page_are_read_and_other_files_are_not(tmp_path: Path) -> None:
    for name in ("index.html", "index-abc.js", ".env", "notes.map"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "assets.js").mkdir()
    found = read_assets(tmp_path)
    assert sorted(found) == ["index-abc.js", "index.html"]
    assert found["index-abc.js"].media_type == "text/javascript"
    assert gzip.decompress(found["index.html"].compressed) == found["index.html"].body == b"this is index.html"
