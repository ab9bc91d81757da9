"""Commands in a real sandbox, what they may not do, and the archives of their files."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from executor.sandbox.archives import pack, unpack
from executor.sandbox.bubblewrap import find_bubblewrap
from executor.sandbox.running import Finished, Output, SandboxFailed, run
from executor.sandbox.server import serving
from tests.servers.bubblewrap_install import HINT
from tests.servers.process_tree import all_gone, descendants
from tests.speed import limit

FORKS = """
import os, time
n = 0
try:
    while n < 200:
        if os.fork() == 0:
            time.sleep(60)
        n += 1
except OSError:
    pass
print(n)
"""
BWRAP = find_bubblewrap()
pytestmark = pytest.mark.skipif(BWRAP is None, reason=HINT)


async def run_in(
    command: str, files: Mapping[str, bytes] = {}, *, seconds: int = 20
) -> tuple[Finished, dict[str, bytes]]:
    assert BWRAP is not None
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
        given.write(pack(files))
        given.seek(0)
        done = await run(BWRAP, command, given, out, seconds=seconds)
        return done, unpack(out, files=100, size=1 << 27).changed if done.packed else {}


async def test_a_command_sees_the_files_and_what_it_changes_is_packed() -> None:
    command = "cat a.txt; mkdir -p new; tr a-z A-Z <a.txt >new/b; rm gone; echo no >&2; exit 3"
    done, files = await run_in(command, {"a.txt": b"hello", "gone": b"1", "deep/er/c": b"\x00\xff"})
    assert done == Finished(3, False, "hello", "no\n", True)
    assert files == {"a.txt": b"hello", "new/b": b"HELLO", "deep/er/c": b"\x00\xff"}


async def test_a_command_that_takes_too_long_is_ended_and_its_files_are_kept() -> None:
    done, files = await run_in("echo 1 >early; echo begun; sleep 300; echo 2 >late", seconds=1)
    assert (done.timed_out, done.stdout, files) == (True, "begun\n", {"early": b"1\n"})
    done, _ = await run_in("trap '' TERM; sleep 300", seconds=1)
    assert done.timed_out
    done, _ = await run_in("exit 124")
    assert (done.exit_code, done.timed_out) == (124, False)


async def test_what_a_command_leaves_behind_ends_with_it() -> None:
    before = descendants(os.getpid())
    started = time.monotonic()
    done, _ = await run_in("setsid sleep 300 & (while true; do date >>f; done) & echo done")
    assert (done.exit_code, done.stdout, done.packed) == (0, "done\n", True)
    assert time.monotonic() - started < limit(10)
    await all_gone(descendants(os.getpid()) - before, limit(5))


async def test_a_cancelled_command_ends_within_a_second() -> None:
    before = descendants(os.getpid())
    running = asyncio.create_task(run_in("echo begun; setsid sleep 300 & sleep 300", seconds=60))
    async with asyncio.timeout(limit(10)):
        while len(new := descendants(os.getpid()) - before) < 4:
            await asyncio.sleep(0.01)  # between two checks of a bounded wait
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await all_gone(new, limit(1))


async def test_a_command_that_is_cancelled_while_it_starts_leaves_nothing() -> None:
    before, opened = descendants(os.getpid()), len(os.listdir("/proc/self/fd"))
    for steps in range(12):
        running = asyncio.create_task(run_in("sleep 300", seconds=60))
        for _ in range(steps):
            await asyncio.sleep(0)  # one step of the event loop
        running.cancel()
        async with asyncio.timeout(limit(10)):
            with pytest.raises(asyncio.CancelledError):
                await running
    await all_gone(descendants(os.getpid()) - before, limit(5))
    assert len(os.listdir("/proc/self/fd")) <= opened + 2  # what the event loop keeps


async def test_a_command_has_no_network_and_sees_nothing_else_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        done, _ = await run_in(
            f"(exec 9<>/dev/tcp/127.0.0.1/{port}) 2>&1 | grep -o refused; env | cut -d= -f1 | sort | tr '\\n' ' ';"
            " ls / | tr '\\n' ' '; id -u; grep CapEff /proc/self/status; cat /proc/[0-9]*/environ | grep -c A_SECRET;"
            " unshare -U true 2>&1 | grep -c unshare; touch /usr/x /x 2>&1 | grep -c Read-only"
        )
    words = done.stdout.split()
    assert "refused" in words
    assert "hidden" not in done.stdout
    shown = set(words[words.index("HOME") : words.index("bin")])
    assert shown <= {
        "HOME",
        "LANG",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHLVL",
        "TMPDIR",
        "_",
    }
    assert "workspace" in words
    assert not {"root", "home", "var", "run"} & set(words)
    assert words[-6:] == ["1000", "CapEff:", "0000000000000000", "0", "1", "2"]


async def test_a_command_is_held_to_its_limits() -> None:
    endless, full, memory, many = await asyncio.gather(
        run_in("yes", seconds=1),
        run_in("for n in 1 2; do head -c 90M /dev/zero >$n; done; ls -s | head -1", seconds=30),
        run_in("python3 -c 'bytearray(1 << 30)'"),
        run_in(f"python3 -c '{FORKS}'"),
    )
    assert endless[0].timed_out
    assert len(endless[0].stdout) < 31_000
    assert "are left out]" in endless[0].stdout
    assert int(full[0].stdout.split()[1]) <= 102_400
    assert "No space left" in full[0].stderr
    assert "MemoryError" in memory[0].stderr or "not found" in memory[0].stderr
    assert "not found" in many[0].stderr or int(many[0].stdout) < 64


async def test_links_and_pipes_are_not_packed_as_files() -> None:
    done, files = await run_in("ln -s /etc/passwd link; ln a 0; ln a zz; mkfifo pipe; ln -s .. up", {"a": b"1"})
    assert done.packed
    assert files == {"a": b"1", "0": b"1", "zz": b"1"}  # hard links are files


async def test_files_that_a_command_makes_unreadable_are_kept() -> None:
    done, files = await run_in("chmod 000 d a .", {"a": b"1", "d/e/b": b"2"})
    assert done.packed
    assert files == {"a": b"1", "d/e/b": b"2"}


async def test_no_exit_code_and_no_words_of_a_command_pass_for_a_failure_of_the_sandbox() -> None:
    done, files = await run_in("echo 1 >a; exit 125")
    assert (done.exit_code, files) == (125, {"a": b"1\n"})
    done, files = await run_in("echo 1 >a; echo 'bwrap: no' >&2; exit 1")
    assert (done.exit_code, done.stderr, files) == (1, "bwrap: no\n", {"a": b"1\n"})
    with pytest.raises(SandboxFailed, match="could not be unpacked"):
        await run_in("true", {"x" * 256: b""})


async def test_only_a_socket_is_removed_for_a_new_sandbox(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        async with serving(tmp_path / "notes", "/bin/false"):
            pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_an_output_keeps_its_beginning_and_its_end() -> None:
    output = Output(10)
    for piece in (b"abc", b"defgh", b"ijklmnopq", b"\xc3\xa9\x00"):
        output.add(piece)
    assert output.text == "abcde\n[10 bytes are left out]\npq\u00e9\ufffd"
    short = Output(10)
    short.add(b"0123456789")
    assert short.text == "0123456789"


def test_archives_of_strangers_are_read_within_limits() -> None:
    members = io.BytesIO()
    with tarfile.open(fileobj=members, mode="w") as archive:
        for name, kind in (("../../up", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("device", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "/etc/passwd", 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"x"))
        archive.addfile(tarfile.TarInfo("last"), io.BytesIO())
    members.seek(0)
    found = unpack(members, files=10, size=100)
    assert (found.changed, found.left_out, found.whole) == (
        {"../../up": b"x", "last": b""}, ["link", "device"], True,
    )  # fmt: skip
    many = pack({str(number): b"12345" for number in range(20)})
    few = unpack(io.BytesIO(many), files=4, size=100)
    assert (len(few.changed), few.whole) == (4, False)
    found = unpack(io.BytesIO(many), files=100, size=11)
    assert (found.changed, found.whole) == ({"0": b"12345", "1": b"12345"}, False)
    for damaged in (b"no archive" * 100, b"", many[:1_600], many[:1_024], b"\xff" * 5_000):
        assert unpack(io.BytesIO(damaged), files=100, size=100).whole is False


def test_of_files_that_are_known_only_the_paths_are_returned() -> None:
    long = "/".join(["\u00e9" * 40] * 4)
    known = {path: hashlib.sha256(b"old").hexdigest() for path in ("same", "changed", long)}
    packed = io.BytesIO(pack({"same": b"old", "changed": b"new", long: b"old", "other": b"old"}))
    found = unpack(packed, files=2, size=100, known=known)
    assert (found.changed, found.same, found.whole) == (
        {"changed": b"new", "other": b"old"}, {"same", long}, True,
    )  # fmt: skip
