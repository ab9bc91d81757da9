"""Packs the files of a workspace into a tar archive, and reads what a sandbox has packed, which may be anything.

Source: the format of GNU tar, "Basic Tar Format" in its manual (gnu.org/software/tar/manual, read 2026-12-01). The
module tarfile only packs: for reading, extended headers of strangers could make it use much memory and time.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

_ENOUGH = 10_000
"""Members of an archive that are looked at."""
_BLOCK = tarfile.BLOCKSIZE
_LONG_NAME = 65_536
"""Bytes of a name that is a member of its own."""
_NO_FILE = {b"2": "link", b"3": "device", b"4": "device", b"6": "pipe"}
"""Types of members that are left out."""


def new_archive(out: IO[bytes]) -> tarfile.TarFile:
    """Opens an archive that is written to `out`, uncompressed. It is whole when it was closed."""
    return tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)


def add(archive: tarfile.TarFile, path: str, data: bytes) -> None:
    """Adds a file at a relative path."""
    member = tarfile.TarInfo(path)
    member.size, member.mode, member.uid, member.gid = len(data), 0o644, 1000, 1000
    archive.addfile(member, io.BytesIO(data))


def pack(files: Mapping[str, bytes]) -> bytes:
    """Returns an archive of these files, by their relative paths."""
    out = io.BytesIO()
    with new_archive(out) as archive:
        for path, data in files.items():
            add(archive, path, data)
    return out.getvalue()


@dataclass(slots=True)
class Unpacked:
    """What an archive has. `whole` is False if something of it was not read, so a file that is missing may be there."""

    changed: dict[str, bytes] = field(default_factory=dict)
    same: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    whole: bool = False


class _Damaged(Exception):
    """The archive cannot be read any further, or has more than is read."""


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    link: bytes
    kind: bytes
    size: int


def unpack(archive: IO[bytes], *, files: int, size: int, known: Mapping[str, str] | None = None) -> Unpacked:
    """Returns the regular files of an archive by their relative paths: of those whose SHA-256 is in `known`, the paths.

    A hard link counts as a file of its own. Symbolic links, devices and pipes are left out. So is what exceeds `files`
    that have changed or, together, `size` bytes, and what follows damage. Nothing is written to a disk, and no link is
    followed. An archive that lacks its end is not whole.
    """
    found = Unpacked()
    try:
        _read_members(archive, found, files, size, known or {})
        found.whole = True
    except (_Damaged, OSError):
        pass
    return found


def _read_members(archive: IO[bytes], found: Unpacked, files: int, room: int, known: Mapping[str, str]) -> None:
    places: dict[bytes, tuple[int, int]] = {}
    long_name: bytes | None = None
    long_link: bytes | None = None
    for _ in range(_ENOUGH):
        header = _header(archive.read(_BLOCK))
        if header is None:
            return
        start = archive.tell()
        after = start + -(-header.size // _BLOCK) * _BLOCK
        if header.kind in (b"L", b"K"):
            if header.size > _LONG_NAME:
                raise _Damaged
            name = _content(archive, header.size).partition(b"\0")[0]
            long_name, long_link = (name, long_link) if header.kind == b"L" else (long_name, name)
        else:
            name, link = long_name or header.name, long_link or header.link
            long_name = long_link = None
            path = name.removeprefix(b"./").decode("utf-8", "surrogateescape")
            if header.kind in _NO_FILE:
                found.left_out.append(path)
            elif header.kind in (b"0", b"\0", b"1"):
                place = places.get(link) if header.kind == b"1" else (start, header.size)
                if place is None or place[1] > room:
                    raise _Damaged
                places[name] = place
                archive.seek(place[0])
                data = _content(archive, place[1])
                room -= len(data)
                _note(found, path, data, known)
                if len(found.changed) > files:
                    del found.changed[path]
                    raise _Damaged
        archive.seek(after)
    raise _Damaged


def _note(found: Unpacked, path: str, data: bytes, known: Mapping[str, str]) -> None:
    if known.get(path) == hashlib.sha256(data).hexdigest():
        found.same.add(path)
        found.changed.pop(path, None)
    else:
        found.changed[path] = data
        found.same.discard(path)


def _header(block: bytes) -> _Header | None:
    """Returns what a header says, and None for the block that ends an archive. Raises _Damaged."""
    if len(block) == _BLOCK and not any(block):
        return None
    if len(block) < _BLOCK or _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise _Damaged
    name, link = (text.partition(b"\0")[0] for text in (block[:100], block[157:257]))
    return _Header(name, link, block[156:157], 0 if block[156:157] in b"123456" else _number(block[124:136]))


def _number(text: bytes) -> int:
    digits = text.strip(b" \0") or b"0"
    if not digits.isdigit() or max(digits) > ord("7"):
        raise _Damaged
    return int(digits, 8)


def _content(archive: IO[bytes], size: int) -> bytes:
    data = archive.read(size)
    if len(data) < size:
        raise _Damaged
    return data
