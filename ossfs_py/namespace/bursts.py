"""Directories in which a program asks for one name after another. No I/O.

A program that creates files asks for each name first. One listing of the directory answers for all
of them, where it is one page; a larger directory is asked name by name.

A program that has listed a directory asks for its names in their order: `ls -l`, `du`, `rsync`. If
that takes longer than attributes are trusted, a page of the listing answers for the next thousand.
"""

import trio

from ossfs_py.runtime.recent import Recent

_BURST_SECONDS = 2.0
"""A name requested so soon after an absent one is likely to be absent, too."""
_LARGE_SECONDS = 60.0
"""For how long a directory of more than a page is taken for one: few become small again."""
_MAX_DIRECTORIES = 1024
_RUN_NAMES = 3
"""So many names in their order are taken for a beginning: of names in any order, one in six would
be."""
_RUN_SECONDS = 60.0
"""A page may be used for so long before the name behind it is asked for: a minute for a thousand
names is a program that does something with each."""
_USELESS_NAMES = 100
"""A page that did not bring its name costs a request more; no other one for so many names."""


class _InOrder:
    """Names that were asked for in their order: the last one, when, and how many."""

    __slots__ = ("asked_at", "last", "names")

    def __init__(self) -> None:
        self.last = ""
        self.asked_at = 0.0
        self.names = 0


class Bursts:
    """Belongs to the trio thread. Directories go by their inode numbers."""

    def __init__(self) -> None:
        self._missed_at: Recent[int, float] = Recent(_MAX_DIRECTORIES)
        self._large_at: Recent[int, float] = Recent(_MAX_DIRECTORIES)
        self._runs: Recent[int, _InOrder] = Recent(_MAX_DIRECTORIES)

    def name_before(self, directory: int, name: str) -> str | None:
        """A name is asked for; the one before it, if both belong to a run in their order."""
        run = self._runs.get(directory)
        if run is None:
            run = _InOrder()
        self._runs.put(directory, run)
        before, now = run.last, trio.current_time()
        if run.names < 0:
            run.names += 1
        elif name < before or now - run.asked_at > _RUN_SECONDS:
            run.names = 1
        else:
            run.names += 1
        run.last, run.asked_at = name, now
        return before if run.names >= _RUN_NAMES else None

    def answered_until(self, directory: int, name: str) -> None:
        """A page answers for the run up to this name."""
        if (run := self._runs.get(directory)) is not None:
            run.last = max(run.last, name)

    def useless(self, directory: int) -> None:
        """A page did not bring the name: the run skips more than a page holds."""
        if (run := self._runs.get(directory)) is not None:
            run.names = -_USELESS_NAMES

    def missed(self, directory: int) -> None:
        """A name in the directory was requested and is absent."""
        self._missed_at.put(directory, trio.current_time())

    def expects_absence(self, directory: int) -> bool:
        """Whether a name that is requested now is likely to be absent."""
        return self._is_recent(self._missed_at.get(directory), _BURST_SECONDS)

    def is_large(self, directory: int) -> bool:
        """Whether one page did not hold the directory when it was listed last."""
        return self._is_recent(self._large_at.get(directory), _LARGE_SECONDS)

    def found_large(self, directory: int) -> None:
        """One page does not hold the directory."""
        self._large_at.put(directory, trio.current_time())

    @staticmethod
    def _is_recent(at: float | None, seconds: float) -> bool:
        return at is not None and trio.current_time() - at < seconds
