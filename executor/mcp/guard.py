"""A script that runs a program and ends everything that the program started. It is executed, not imported.

    python -I -S guard.py PROGRAM [ARGUMENT...]

The program gets its own process group. The guard passes SIGTERM on to the group. It kills the group on SIGUSR1 and when
the program ends. It exits with the program's code, or 127 if the program cannot be run. If the guard itself is killed,
the kernel kills the program; processes that the program started must then notice that their standard input has ended.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # the operation of prctl(2)
HANDLED = (signal.SIGTERM, signal.SIGUSR1)


def become(command: list[str], guard: int) -> None:
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, *(ctypes.c_ulong(value) for value in (signal.SIGKILL, 0, 0, 0)))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    if os.getppid() == guard:
        os.execvp(command[0], command)  # noqa: S606  # the process must become the program


def send(group: int, demand: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, demand)


def main(command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until the program exists
    guard, program = os.getpid(), os.fork()
    if program == 0:
        try:
            become(command, guard)
        finally:
            os._exit(127)
    with contextlib.suppress(OSError):  # the child has already done so and run the program
        os.setpgid(program, program)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1):  # only the program keeps them open, so they end with it
        os.dup2(nowhere, pipe)
    signal.signal(signal.SIGTERM, lambda *_: send(program, signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: send(program, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    _, status = os.waitpid(program, 0)
    send(program, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
