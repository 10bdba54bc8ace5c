"""Run a program as an ordinary user, because PostgreSQL refuses to run as root.

`python -I -S unprivileged.py UID GID keep|drop PROGRAM [ARGUMENT ...]`, as root: becomes the user, and then the
program, which keeps the process id. `keep` leaves it one capability, CAP_DAC_READ_SEARCH, without which a program or
data below a closed directory such as a 0700 /root could not be reached. Runs on the standard library alone: at this
moment nothing else may be readable.
"""

from __future__ import annotations

import ctypes
import os
import sys

# <linux/capability.h> and <linux/prctl.h>
CAP_DAC_READ_SEARCH = 2
CAP_SETPCAP = 8
LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2


def become(uid: int, gid: int, *, keep_search: bool) -> None:
    """Give up root for good; `keep_search` leaves CAP_DAC_READ_SEARCH to this process and what it executes.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if keep_search:
        # Else the change of user would clear the capabilities, and later every access(2), by which PostgreSQL finds its
        # own programs, would look without them.
        _require(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl PR_SET_SECUREBITS")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if keep_search:
        header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
        # Two sets of effective, permitted, inheritable: the low 32 capabilities, then the high ones.
        only = 1 << CAP_DAC_READ_SEARCH
        sets = (ctypes.c_uint32 * 6)(only, only, only, 0, 0, 0)
        _require(libc.capset(header, sets), "capset")
        # Ambient capabilities are what survives the execution of an ordinary program.
        _require(
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0),
            "prctl PR_CAP_AMBIENT_RAISE",
        )


def _require(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    user, group, search, *program = sys.argv[1:]
    become(int(user), int(group), keep_search=search == "keep")
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted
