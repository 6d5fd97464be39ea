"""Protection of objects in the bucket: this module alone decides what a mount may not do.

==============  ================================================================================
``delete``      unlink and rmdir
``overwrite``   every change of a file that is stored: opening it for writing, O_TRUNC, truncate,
                attributes, extended attributes, and a rename over it
``rename``      every rename
==============  ================================================================================

A program that makes a file may write it until it closes the file, as that changes no stored file.
If another client stores a file under the name in the meantime, the commit loses
(``ConflictPolicy``).
"""

import logging
from collections.abc import Collection
from typing import Literal

import trio
from cachetools import TTLCache

from ossfs_py.errors import NotPermittedError, ReadOnlyError

log = logging.getLogger(__name__)

Protected = Literal["delete", "overwrite", "rename"]

_QUIET_SECONDS = 60.0
"""``rm -r`` of a protected tree is one mistake: one line a minute for each directory is enough."""
_MAX_PLACES = 1024


class Protection:
    """Refuses changes that the mount protects against. Belongs to the trio thread."""

    def __init__(self, against: Collection[Protected] = (), *, read_only: bool = False) -> None:
        self.read_only = read_only
        self._against = frozenset(against)
        self._told: TTLCache[tuple[str, str], bool] = TTLCache(
            _MAX_PLACES, _QUIET_SECONDS, timer=trio.current_time
        )

    def forbids(self, change: Protected) -> bool:
        """Whether a change of this kind is refused."""
        return change in self._against

    def require_writable(self) -> None:
        """Raises ReadOnlyError if nothing may change."""
        if self.read_only:
            raise ReadOnlyError("the mount is read-only")

    def refuse(self, change: Protected, call: str, path: str) -> None:
        """Refuse ``call`` (a system call's name) if its change to ``path`` is protected.

        Raises:
            NotPermittedError: it is protected; the log says so.
        """
        if change not in self._against:
            return
        sentence = f"{call} of {path!r} is refused: the mount is protected (--protect {change})"
        place = (change, path.rpartition("/")[0])
        level = logging.INFO if place in self._told else logging.WARNING
        self._told[place] = True
        log.log(level, "%s", sentence)
        raise NotPermittedError(sentence)
