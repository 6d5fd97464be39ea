"""Metadata answers that survive the mount: a small SQLite file beside the disk cache.

One HEAD per object version is what full POSIX attributes cost. The ``cache`` data path keeps the
answers, so that the next mount on this host begins with them. The file is a memory, not a truth:
every row names the version it speaks of, and a file that cannot be read is begun anew.
"""

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import trio

from ossfs_py.namespace.answers import MetadataMemory, Remembered
from ossfs_py.runtime.workers import Workers

T = TypeVar("T")

log = logging.getLogger(__name__)

_SAVE_SECONDS = 5.0
"""Answers that a killed daemon got in its last seconds are requested again."""
_BUSY_SECONDS = 5.0
"""Several mounts of one bucket share the file."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT NOT NULL, etag TEXT NOT NULL, mtime_seconds INTEGER NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY (key, etag, mtime_seconds)
)
"""


class MetadataFile:
    """The file. Blocking; one call at a time, on any thread."""

    def __init__(self, path: Path, max_entries: int) -> None:
        self._path = path
        self._max_entries = max_entries
        self._usable = True

    def load(self) -> list[Remembered]:
        """The answers kept last; none if the file cannot be used."""

        def select(connection: sqlite3.Connection) -> list[Remembered]:
            rows = connection.execute(
                "SELECT key, etag, mtime_seconds, metadata FROM answers"
                " ORDER BY rowid DESC LIMIT ?",
                (self._max_entries,),
            )
            return [(key, etag, seconds, _decoded(text)) for key, etag, seconds, text in rows]

        return self._with_connection(select) or []

    def save(self, answers: Iterable[Remembered]) -> None:
        """Keep answers, and only as many as are wanted altogether."""

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)",
                [(key, etag, seconds, json.dumps(dict(m))) for key, etag, seconds, m in answers],
            )
            connection.execute(
                "DELETE FROM answers WHERE rowid <= (SELECT max(rowid) FROM answers) - ?",
                (self._max_entries,),
            )

        self._with_connection(insert)

    def _with_connection(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do it; with a new file if the old one is damaged, not at all if there can be none."""
        for _ in range(2):
            if not self._usable:
                break
            try:
                return self._attempt(work)
            except (sqlite3.DatabaseError, ValueError) as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    self._give_up(exc)
                else:
                    log.warning("%s is damaged (%s) and is created again", self._path, exc)
                    self._remove()
            except OSError as exc:
                self._give_up(exc)
        return None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # SQLite would create it readable by everybody.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as connection:
            # Losing the last answers in a power cut costs some requests, a sync costs more.
            connection.execute("PRAGMA synchronous = OFF")
            with connection:
                connection.execute(_SCHEMA)
                return work(connection)

    def _remove(self) -> None:
        for suffix in ("", "-journal"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()

    def _give_up(self, cause: Exception) -> None:
        self._usable = False
        log.warning("metadata is remembered in memory only: %s: %s", self._path, cause)


class MetadataKeeper:
    """Brings the file's answers into memory, and new ones back. Belongs to the trio thread."""

    def __init__(self, memory: MetadataMemory, file: MetadataFile, files: Workers) -> None:
        self._memory = memory
        self._file = file
        self._files = files

    async def run(self) -> None:
        """Load once, then save what is new from time to time, until cancelled."""
        self._memory.recall(await self._files.run(self._file.load, urgent=False))
        while True:
            await trio.sleep(_SAVE_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Save what is new."""
        answers = self._memory.take_new()
        if answers:
            await self._files.run(self._file.save, answers, urgent=False)


def _decoded(text: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in json.loads(text).items()}
