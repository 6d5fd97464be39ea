"""Whether the store gives a version to this mount, where a disk that others fill has its bytes.

The disk cache outlives mounts and is shared by those of other credentials, which may list a bucket
and not read it. So nothing that came from it is answered before the store has given a byte of that
very version to this mount: one that it read anyway, or one that is asked for.

A cache for each identity would need no request, and would be thrown away every hour where keys are
those of a role. A HEAD would not do: it is granted where GET is not (objects under a KMS key).
What was given counts as long as the mount lives; the next mount asks anew, so that what was taken
from somebody is taken from the cache, too.
"""

import os
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import outcome
import trio

from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.runtime.workers import Job, Workers

GetRange = Callable[[ObjectVersion, int, memoryview], ObjectInfo | None]

MAX_GRANTS = 1_000_000
"""Versions that are known to be readable, at about 90 bytes each. Of those beyond any one is
forgotten, and asked for again: epochs over more files than that still find most of them."""


class Grants:
    """The versions that the store has given to this mount. Belongs to the trio thread."""

    def __init__(self, limit: int = MAX_GRANTS) -> None:
        self._limit = limit
        self._secret = os.urandom(16)
        self._known: set[int] = set()

    def holds(self, version: ObjectVersion) -> bool:
        """Whether some of the version was given."""
        return self._digest(version) in self._known

    def add(self, version: ObjectVersion) -> None:
        """The store gave some of the version, or this mount made it."""
        if len(self._known) >= self._limit:
            self._known.pop()
        self._known.add(self._digest(version))

    def _digest(self, version: ObjectVersion) -> int:
        # Keys and ETags are other people's choice. With a secret, none can be made to match.
        text = f"{version.size}\0{version.etag}\0{version.key}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._secret).digest(), "little")


class _Question:
    """A request on its way. ``error``: why it was in vain."""

    __slots__ = ("answered", "error", "job")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.error: BaseException | None = None
        self.job: Job | None = None


class Leave:
    """The leave to read one version. Belongs to the trio thread."""

    def __init__(
        self, version: ObjectVersion, grants: Grants, get_range: GetRange, network: Workers
    ) -> None:
        """``version`` has at least one byte."""
        self.granted = grants.holds(version)
        self._version = version
        self._grants = grants
        self._get_range = get_range
        self._network = network
        self._question: _Question | None = None
        self.told: ObjectInfo | None = None
        """The headers of the object that came with the byte that was asked for."""

    def grant(self, version: ObjectVersion) -> None:
        """The store has given some of the version, which holds the same bytes."""
        self._version = version
        self._grants.add(version)
        self.granted = True

    def ask(self, *, urgent: bool) -> None:
        """Begin to ask for a byte, unless that is not needed or under way."""
        if self.granted or self._question is not None:
            return
        question = self._question = _Question()
        call = partial(self._get_range, self._version, 0, memoryview(bytearray(1)))
        ended = partial(self._ended, question, self._version)
        question.job = self._network.submit(call, ended, urgent=urgent)

    async def wait(self) -> BaseException | None:
        """Wait for the answer: why the store did not give it (the next call asks again), None if it
        did or if the leave was let go of. Cancelled, the request goes on.
        """
        self.ask(urgent=True)
        question = self._question
        if question is None:
            return None
        if question.job is not None:
            question.job.promote()
        await question.answered.wait()
        return question.error

    def close(self) -> None:
        """Let everybody who waits go on; a request on its way runs to its end."""
        question, self._question = self._question, None
        if question is not None:
            question.answered.set()

    def _ended(
        self, question: _Question, version: ObjectVersion, result: outcome.Outcome[Any]
    ) -> None:
        if isinstance(result, outcome.Error):
            question.error = result.error
        else:
            self.told = result.unwrap()
            if not self.granted:
                self.grant(version)
        if self._question is question:
            self._question = None
        question.answered.set()
