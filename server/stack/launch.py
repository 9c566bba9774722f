"""Turns itself into a child of the supervisor: `python -I -S launch.py PARENT_PID SIGNAL USER COMMAND...`.

A program of its own, not a `preexec_fn`, because the parent may have threads. It imports nothing of ours: every process
of the stack pays for it.

PostgreSQL refuses to run as root, so as root its commands run as another user. The checkout may be in a folder that
user cannot enter (/root), so it keeps one capability: to read and search everywhere. Only then, and only that one: an
ambient capability outlives `exec`, so initdb can hand it on to the servers it starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_SETPCAP = 8
SECBIT_NO_SETUID_FIXUP = 1 << 2


def _check(libc: ctypes.CDLL, status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _set_capabilities(libc: ctypes.CDLL, *capabilities: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bits = sum(1 << capability for capability in capabilities)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)
    _check(libc, libc.capset(header, effective_permitted_inheritable))


def _keep_capability(libc: ctypes.CDLL, capability: int) -> None:
    _set_capabilities(libc, capability, CAP_SETPCAP)
    # Without it access(2), which initdb asks about its programs, answers as if there were no capability.
    _check(libc, libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    _set_capabilities(libc, capability)
    _check(libc, libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _become(libc: ctypes.CDLL, user: int, group: int) -> None:
    _check(libc, libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _let_in(libc: ctypes.CDLL, folder: str, program: str) -> None:
    if os.access(program, os.X_OK) and os.access(folder, os.W_OK):
        return
    # Containers withhold CAP_DAC_READ_SEARCH more often than CAP_DAC_OVERRIDE, which is more than needed.
    try:
        _keep_capability(libc, CAP_DAC_READ_SEARCH)
    except PermissionError:
        _keep_capability(libc, CAP_DAC_OVERRIDE)


def main(parent: str, death_signal: str, user: str, *command: str) -> None:
    """Run the command as asked; the working folder is the one that the user must be able to use."""
    # A supervisor waits for signals with some of them blocked, and a mask outlives exec.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    libc = ctypes.CDLL(None, use_errno=True)
    if user != "-":
        folder = os.getcwd()
        uid, gid = map(int, user.split(":"))
        try:
            _become(libc, uid, gid)
            _let_in(libc, folder, command[0])
        except OSError as error:
            sys.exit(
                f"PostgreSQL does not run as root, and this machine does not let user {uid} into {folder} and to "
                f"{command[0]}: {error.strerror}. Run it as an ordinary user, or set DATABASE_URL to another server."
            )
    if sys.platform == "linux":
        # After the change of user: the kernel clears it then.
        _check(libc, libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0))
        if os.getppid() != int(parent):
            sys.exit("the process that started this one has ended already")
    os.execv(command[0], command)  # noqa: S606 - the supervisor's own commands


if __name__ == "__main__":
    main(*sys.argv[1:])
