"""A question about one key, on its way to the store, and what it was answered."""

from dataclasses import dataclass

import trio

from ossfs_py.errors import ObjectMissingError, StoreError
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.pending import Pending


@dataclass(frozen=True, slots=True)
class Below:
    """The answer of a LIST about the keys under ``key/``."""

    exists: bool
    marker: ObjectInfo | None


NOTHING_BELOW = Below(False, None)


class Question:
    """One question about one key on its way to the store.

    ``head`` asks for the object, ``below`` for the keys that make a directory of its name.
    """

    __slots__ = ("asked_at", "below", "expected", "head", "key", "marker_of", "serial")

    def __init__(self, key: str, serial: int) -> None:
        self.key = key
        self.serial = serial
        self.expected: tuple[Inode, str] | None = None
        """The directory and the name that are requested ahead of a lookup."""
        self.head: Pending[ObjectInfo] | None = None
        self.below: Pending[Below] | None = None
        self.marker_of: Inode | None = None
        """The directory whose mode is wanted: ``head`` is about its marker."""
        self.asked_at = trio.current_time()

    @property
    def settled(self) -> bool:
        """Whether every part is answered."""
        return all(part is None or part.settled for part in (self.head, self.below))


Answers = tuple[ObjectInfo | StoreError | None, Below | StoreError | None]
"""For the object and for the keys below: found, absent (None), or the reason why it is not known.
"""


def answers_of(question: Question) -> Answers:
    """The answers to a settled question."""
    head: ObjectInfo | StoreError | None = None
    below: Below | StoreError | None = None
    if question.head is not None:
        error = question.head.error
        head = error if isinstance(error, StoreError) else question.head.result()
        if isinstance(error, ObjectMissingError):
            head = None
    if question.below is not None:
        error = question.below.error
        below = error if isinstance(error, StoreError) else question.below.result()
    return head, below
