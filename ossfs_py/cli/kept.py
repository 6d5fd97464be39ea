"""How a keeper starts a daemon, and how the daemon knows that it was.

Nothing is imported but Python's own: the keeper uses it, too.
"""

import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from ossfs_py.host.deposit import Deposit
    from ossfs_py.host.handover import Predecessor
    from ossfs_py.host.keeping import MountKeeper

KEPT: Final = "_OSSFS_PY_KEPT"
"""The variable of the environment that tells a daemon what its keeper has left open for it."""
SUCCEEDS: Final = "_OSSFS_PY_SUCCEEDS"
"""The variable that tells a daemon which is to take over from one that serves where to speak with
that: the number of a socket, and of what is to be its standard error."""
UPGRADED: Final = "_OSSFS_PY_UPGRADED"
"""The variable with the settings that upgrades have changed, as JSON by field."""
DEPOSIT: Final = "_OSSFS_PY_DEPOSIT"
"""The variable that tells the keeper what place it has at the node's keeper."""
STANDARD_ERROR: Final = 2
NOT_THERE: Final = -1
"""Instead of a descriptor."""
_PR_SET_DUMPABLE = 4
"""linux/prctl.h"""
_PRIVATE_UMASK = 0o077


def told_as_text(descriptors: Sequence[int], given_up: str) -> str:
    """The text of the variable: descriptors of the channel, the ledger, the kernel and the pipe for
    "it serves", and the reason if the mount is given up."""
    return " ".join([*map(str, descriptors), given_up])


def keeper_of(environ: MutableMapping[str, str]) -> "tuple[MountKeeper, int] | None":
    """The keeper that has started this process, and the descriptor where to say that it serves
    (or :data:`NOT_THERE`); None if no keeper has. Taken out of the environment.
    """
    told = environ.pop(KEPT, None)
    if told is None:
        return None
    from ossfs_py.host.keeping import MountKeeper

    *numbers, given_up = told.split(" ", 4)
    channel, ledger, device, ready = map(int, numbers)
    end = socket.socket(fileno=channel)
    end.set_inheritable(False)
    kernel = None if device == NOT_THERE else device
    return MountKeeper(end, ledger, kernel, given_up), ready


def predecessor_of(environ: MutableMapping[str, str]) -> "Predecessor | None":
    """The daemon that this one is to take over from while it serves. Taken out of the environment,
    and standard error is what it should be.
    """
    told = environ.pop(SUCCEEDS, None)
    if told is None:
        return None
    from ossfs_py.host.handover import Predecessor

    channel, stderr = map(int, told.split())
    os.dup2(stderr, STANDARD_ERROR)
    os.close(stderr)
    os.set_inheritable(channel, False)
    return Predecessor(socket.socket(fileno=channel))


def deposit_of(environ: MutableMapping[str, str]) -> "Deposit | None":
    """The place of a keeper's mount at the node's keeper; None if it has none. Taken out of the
    environment.
    """
    told = environ.pop(DEPOSIT, None)
    if told is None:
        return None
    from ossfs_py.host.deposit import Deposit

    return Deposit.from_text(told)


def changed_by_upgrades(environ: MutableMapping[str, str]) -> dict[str, object]:
    """Settings that ``ossfs-py upgrade`` was given, by field. Taken out of the environment."""
    changes: dict[str, object] = json.loads(environ.pop(UPGRADED, "{}"))
    return changes


def become_keeper(
    restarts: int, deposit: "Deposit | None", ready: int = NOT_THERE, *, leads: bool
) -> NoReturn:
    """Become the keeper of the mount that this command line makes.

    ``deposit`` is its place at the node's keeper, if there is one. ``ready`` is the descriptor on
    which the daemon reports that it serves. ``leads``: the daemon leads its own process group.
    """
    if deposit is not None:
        os.environ[DEPOSIT] = deposit.handed_on()
    if ready != NOT_THERE:
        os.set_inheritable(ready, True)
    again = [sys.executable, *sys.orig_argv[1:]]
    argv = [sys.executable, "-m", "ossfs_py.cli.keeper", str(restarts), str(ready)]
    os.execv(sys.executable, [*argv, str(int(leads)), *again])  # noqa: S606


def keep_to_ourselves() -> None:
    """Let only the owner read the files that this process writes (logs name keys), and leave no
    core file, which would contain the secrets. Modes of files in the mount are not affected.

    The kernel ignores the limit if core files go to a program (core_pattern with a pipe). So the
    process is also marked as not dumpable; other processes of its user cannot inspect it either.
    """
    os.umask(_PRIVATE_UMASK)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
