"""What mounts that share a bucket may answer: close-to-open, written down.

* The bucket has one sequence of contents for each name (:class:`History`). What happens at once on
  several clients leaves what it would have left in some order, one after the other.
* A mount may answer with a content that the bucket had within the metadata TTL before the call, or
  later; never with one older than what it has shown, or changed, already (:class:`View`). "No such
  file" is an answer as any other.
* Whoever opens a file for writing sees what is there at that moment, and so does whoever creates a
  file with O_EXCL.
* A descriptor that was given bytes goes on with the content they are of, or with a later one that
  begins with all of it, or is told ESTALE, which it is not while that content is the present one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import permutations
from math import inf

Content = bytes | None
"""None: the name is free."""
Change = Callable[[Content], Content]


@dataclass
class _Version:
    content: Content
    until: float = inf
    """When the call that ended it returned, on the monotonic clock."""


@dataclass
class History:
    """The contents that one name has had in the bucket, the present one last."""

    versions: list[_Version] = field(default_factory=lambda: [_Version(None)])

    @property
    def now(self) -> Content:
        return self.versions[-1].content

    def becomes(self, content: Content, ended: float) -> None:
        """A call that returned at ``ended`` has changed the name."""
        self.versions[-1].until = min(self.versions[-1].until, ended)
        self.versions.append(_Version(content))

    def grown(self, contents: Iterable[bytes]) -> list[bytes]:
        """The contents, and those that came after one of them and begin with all of it."""
        grown = list(contents)
        known = [version.content for version in self.versions]
        for content in tuple(grown):
            later = known[known.index(content) + 1 :] if content in known else []
            grown += [c for c in later if c is not None and c.startswith(content)]
        return list(dict.fromkeys(grown))

    def race(self, changes: Iterable[Change], found: Content, ended: float) -> None:
        """Changes were made at once, and this is what is there now."""
        between: list[Content] = []
        is_explained = False
        for order in permutations(tuple(changes)):
            steps = [self.now]
            for change in order:
                steps.append(change(steps[-1]))
            if steps[-1] == found:
                is_explained = True
                between += steps[1:-1]
        assert is_explained, (self.now, found)
        self.versions[-1].until = ended
        self.versions += [_Version(content, ended) for content in between]
        self.versions.append(_Version(found))


class View:
    """What one mount has shown of each name."""

    def __init__(self, stale_seconds: float) -> None:
        """``stale_seconds``: how old an answer may be."""
        self._stale_seconds = stale_seconds
        self._oldest: dict[str, int] = {}

    def allowed(self, name: str, history: History, began: float) -> list[Content]:
        """What a call that began then may show."""
        oldest = self._oldest.get(name, 0)
        return [
            version.content
            for number, version in enumerate(history.versions)
            if number >= oldest and version.until >= began - self._stale_seconds
        ]

    def showed(self, name: str, history: History, began: float, content: Content) -> None:
        """A call showed the content; anything older is not to be shown any more."""
        allowed = self.allowed(name, history, began)
        assert content in allowed, (name, _short(content), [_short(each) for each in allowed])
        first = self._oldest.get(name, 0)
        self._oldest[name] = next(
            number
            for number, version in enumerate(history.versions)
            if number >= first
            and version.until >= began - self._stale_seconds
            and version.content == content
        )

    def sees_present(self, name: str, history: History) -> None:
        """The mount changed the name, or asked what is there: nothing older is to be shown."""
        self._oldest[name] = len(history.versions) - 1


def _short(content: Content) -> str:
    if content is None:
        return "free"
    return f"{len(content)} bytes {content[:30]!r}…{content[-12:]!r}"
