"""The children that make text of pages, and what happens when one misbehaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from executor.web import extraction
from executor.web.extraction import Extraction
from executor.web.failures import WebFailure
from tests.speed import limit

CHILD = Path(extraction.__file__).with_name("extraction_child.py")


def replace_child(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    file = folder / "child.py"
    file.write_text(f"import sys, time, os\n{program}\n")
    monkeypatch.setattr(extraction, "_CHILD", file)


@pytest.mark.parametrize(
    "program",
    [
        "sys.exit(1)", "os.kill(os.getpid(), 9)", "print('no json')", "print('[1]')", "print('{}' * 1_000_000)",
        "sys.stdin.buffer.read(); print('{\"error\": \"unreadable\"}')", "os.close(1); os.close(0)",
    ],
)  # fmt: skip
async def test_a_child_that_fails_costs_one_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    replace_child(monkeypatch, tmp_path, program)
    with pytest.raises(WebFailure) as failure:
        await Extraction().extract("text", b"x" * 2_000_000)
    assert failure.value.code == "unreadable"


async def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace_child(monkeypatch, tmp_path, "time.sleep(600)")
    monkeypatch.setattr(extraction, "RUNS", 0.2)
    async with asyncio.timeout(limit(20)):
        with pytest.raises(WebFailure, match="cannot be read"):
            await Extraction().extract("html", b"x" * 2_000_000)


async def test_a_page_that_tires_the_better_parser_is_read_by_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = (
        "import runpy\nif sys.argv[1] == 'html': os.kill(os.getpid(), 24)\n"
        f"runpy.run_path({str(CHILD)!r}, run_name='__main__')"
    )
    replace_child(monkeypatch, tmp_path, program)
    made = await Extraction().extract("html", b"<title>A</title><p>Some <b>words</b>.</p>")
    assert (made.title, made.text.split()) == ("A", ["Some", "words", "."])


async def test_a_cancel_ends_the_child_and_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_child(
        monkeypatch, tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    reader = Extraction()
    job = asyncio.create_task(reader.extract("text", b"x"))
    pid = tmp_path / "pid"
    async with asyncio.timeout(limit(20)):
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)  # between two looks of a bounded wait
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    assert not Path(f"/proc/{pid.read_text()}").exists()
    monkeypatch.setattr(extraction, "_CHILD", CHILD)
    pages = [reader.extract("text", b"%d" % n) for n in range(4)]
    assert [made.text for made in await asyncio.gather(*pages)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "deed",
    [
        "bytearray(600 << 20)",
        "import os; os.write(os.open('/tmp/of-a-confined-child', os.O_CREAT | os.O_WRONLY), b'x')",
    ],
)
def test_a_child_is_confined(deed: str) -> None:
    program = f"import runpy\nrunpy.run_path({str(CHILD)!r})['confine']()\n{deed}"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=limit(20), check=False
    )
    assert ran.returncode != 0
    assert "MemoryError" in ran.stderr or "File too large" in ran.stderr


@pytest.mark.parametrize("page", [b"<div>" * 2_000 + b"words", b"<p>words</p>" * 50_000])
async def test_deep_and_long_pages_end_in_a_text_or_a_reason(page: bytes) -> None:
    try:
        ended = (await Extraction().extract("html", page)).text
    except WebFailure as failure:
        ended = failure.code
    assert ended.startswith("words") or ended in ("no_text", "unreadable")


async def test_one_user_with_many_pages_leaves_children_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_child(monkeypatch, tmp_path, 'sys.stdin.buffer.read(); print(\'{"text": "words"}\')')
    reader, read = Extraction(), list[str]()

    async def wants(owner: str) -> None:
        await reader.extract("text", b"x", owner=owner)
        read.append(owner)

    async with asyncio.timeout(limit(30)):
        await asyncio.gather(*map(wants, ("greedy",) * 8 + ("modest",)))
    assert "modest" in read[:5]  # two are read, two are next to be, and then it is the other's turn


async def test_a_page_that_waits_too_long_for_a_child_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_child(monkeypatch, tmp_path, "time.sleep(600)")
    monkeypatch.setattr(extraction, "WAITS", 0.01)
    reader = Extraction()
    jobs = [asyncio.create_task(reader.extract("text", b"x", owner=str(number))) for number in range(3)]
    async with asyncio.timeout(limit(20)):
        done, others = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    assert [one.exception().code for one in done] == ["busy"]  # type: ignore[union-attr]
    for one in others:
        one.cancel()
    await asyncio.wait(others)
