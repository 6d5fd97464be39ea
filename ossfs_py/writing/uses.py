"""Free a resource after its last user: a part's memory or a file an upload thread still reads."""

from collections.abc import Callable


def _released() -> None:
    """What was released is not held any more."""


class Uses:
    """Counts the users of a resource; ``release`` runs once, after :meth:`close` and the last use.

    Belongs to the trio thread; ``release`` must not raise.
    """

    __slots__ = ("_closed", "_count", "_release")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._count = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the owner gave the resource up (users may still hold it)."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether the resource is in use now."""
        return self._count > 0

    def enter(self) -> None:
        """Add a user."""
        if self._closed:
            raise RuntimeError("the resource was given up")
        self._count += 1

    def leave(self) -> None:
        """Remove a user."""
        self._count -= 1
        if self._closed and self._count == 0:
            self._let_go()

    def close(self) -> None:
        """Give the resource up; a second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._count == 0:
                self._let_go()

    def _let_go(self) -> None:
        # It is mostly a method of the owner of this count: kept, the two hold each other.
        release, self._release = self._release, _released
        release()
