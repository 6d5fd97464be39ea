"""Numbers for open files and directories."""


class HandleNumbers:
    """Numbers for handles, each used once."""

    def __init__(self) -> None:
        self._last = 0

    def __iter__(self) -> "HandleNumbers":
        return self

    def __next__(self) -> int:
        self._last += 1
        return self._last

    def skip(self, number: int) -> None:
        """A number is in use already."""
        self._last = max(self._last, number)
