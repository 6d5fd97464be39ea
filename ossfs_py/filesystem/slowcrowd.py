"""Tells in the log, once, that there is a faster way to make many files."""

import logging

import trio

log = logging.getLogger(__name__)

_MANY_FILES = 1000
_MANY_SECONDS = 600.0
"""A program that makes so many files in so short a time unpacks, clones or installs something."""


class SlowCrowd:
    """New files, each of which waited for the store. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._since = trio.current_time()
        self._made = 0
        """Since then; -1 once the log has said that they are many."""

    def count_new(self) -> None:
        """A new file was stored while its program waited."""
        if self._made < 0:
            return
        now = trio.current_time()
        if now - self._since > _MANY_SECONDS:
            self._since, self._made = now, 0
        self._made += 1
        if self._made >= _MANY_FILES:
            self._made = -1
            log.info(
                "%d files were made, and each waited for the store: programs that unpack, clone or"
                " install are faster on a mount with --write-back",
                _MANY_FILES,
            )
