"""Ties a program to the life of its parent, then becomes that program. It is executed, not imported.

    python -I -S death_signal.py PARENT_PID DEATH_SIGNAL IDENTITY PROGRAM [ARGUMENT...]

When the parent dies, for whatever reason, the kernel sends DEATH_SIGNAL to the program. The kernel forgets this setting
when a process changes its user, so the identity is changed first:

    same           keep the current user
    map:UID:GID    a user namespace in which the user is UID:GID; access to files stays that of the current user
    user:UID:GID   that user, with one capability of root: to access files regardless of their permissions
"""

import ctypes
import os
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CLONE_NEWUSER = 0x10000000
CAPABILITY_VERSION_3, CAP_DAC_OVERRIDE = 0x20080522, 1

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    check(libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)), f"prctl({option})")


def map_to(uid: int, gid: int) -> None:
    mapping = {"uid_map": f"{uid} {os.geteuid()} 1", "gid_map": f"{gid} {os.getegid()} 1"}
    check(libc.unshare(CLONE_NEWUSER), "unshare")
    for name, content in {"setgroups": "deny", **mapping}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def become(uid: int, gid: int) -> None:
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    only = 1 << CAP_DAC_OVERRIDE
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, struct.pack("=6I", only, only, only, 0, 0, 0)), "capset")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def main(parent: str, death_signal: str, identity: str, *command: str) -> None:
    kind, *ids = identity.split(":")
    if kind == "map":
        map_to(int(ids[0]), int(ids[1]))
    elif kind == "user":
        become(int(ids[0]), int(ids[1]))
    prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):
        sys.exit("death_signal: the parent is gone")
    os.execv(command[0], command)  # noqa: S606  # to become that program is the purpose


if __name__ == "__main__":
    main(*sys.argv[1:])
