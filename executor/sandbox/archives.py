"""Packs the files of a workspace into a tar archive, and reads what a sandbox has packed, which may be anything."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import IO

_ENOUGH = 10_000
"""Members of an archive that are looked at."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Returns an uncompressed archive of these files, by their relative paths."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.uid, member.gid = len(data), 0o644, 1000, 1000
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def unpack(archive: IO[bytes], *, files: int, size: int) -> tuple[dict[str, bytes], bool]:
    """Returns the regular files of an archive by their relative paths, and whether some were left out.

    Links, devices and everything else are left out. So is what exceeds `files` or, together, `size` bytes, and what
    follows damage. Nothing is written to a disk, and no link is followed.
    """
    found: dict[str, bytes] = {}
    left = size
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for number, member in enumerate(members):
                if number >= _ENOUGH:
                    return found, True
                if member.isdir():
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse:
                    continue
                path = member.name.removeprefix("./")
                if len(found) >= files or member.size > left:
                    return found, True
                content = members.extractfile(member)
                assert content is not None
                found[path] = content.read()
                left -= len(found[path])
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return found, True
    return found, False
