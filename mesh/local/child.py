"""Becomes a command that dies with its parent: `child.py <parent's pid> <command> <argument>...`.

Run as a script, so that nothing of ours happens between fork and exec in a process that may
have threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def dying_with_us(*command: str) -> tuple[str, ...]:
    """The command that becomes `command` and is killed by the kernel when this process ends.

    What changes credentials goes before it, because the kernel forgets the wish when they change.
    """
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *command)


def main(parent: str, *command: str) -> None:
    """Replaces this process by the command; exits 127 if there is no such program."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")  # It died before prctl, and no signal would ever come.
    # Python ignores these, and what is ignored stays so in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the caller's own
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(*sys.argv[1:])
