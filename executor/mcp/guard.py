"""Executed, not imported: runs a program and all that it starts, and leaves nothing of it behind.

    python -I -S guard.py PROGRAM [ARGUMENT...]

The program gets a process group of its own. SIGTERM is passed on to the group; at SIGUSR1, and when the program has
ended, the group is killed. The exit code is the program's, 127 when it cannot be run. Should the guard itself be
killed, the kernel kills the program; what that has started must then notice that its standard input has ended.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
HEARD = (signal.SIGTERM, signal.SIGUSR1)


def become(command: list[str], guard: int) -> None:
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, *(ctypes.c_ulong(value) for value in (signal.SIGKILL, 0, 0, 0)))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    if os.getppid() == guard:
        os.execvp(command[0], command)  # noqa: S606  # to become it is the point


def send(group: int, demand: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, demand)


def main(command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until there is somebody to pass them on to
    guard, program = os.getpid(), os.fork()
    if program == 0:
        try:
            become(command, guard)
        finally:
            os._exit(127)
    with contextlib.suppress(OSError):  # it has done so itself, and is another program by now
        os.setpgid(program, program)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1):  # the program's alone: their ends are its end
        os.dup2(nowhere, pipe)
    signal.signal(signal.SIGTERM, lambda *_: send(program, signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: send(program, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    _, status = os.waitpid(program, 0)
    send(program, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
