"""Asking ahead what a listing does not tell of the entries of a directory.

Where a mode must be asked before the kernel may believe it, a program that looks at, or opens, one
listed file after the other would wait for each. So would one that asks for the names of their
extended attributes. What comes next in the listing is asked meanwhile.
"""

from collections import deque
from itertools import islice

import trio
from cachetools import LRUCache

from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import Tree

_NEAR = 4
"""Looks in listing order may skip a few: labels beside images, or two programs at once."""
_FIRST_WINDOW = 16
_MAX_WINDOW = 128
"""Entries asked ahead: four for each of the 32 connections, as answers are short."""
_MANY = 8
_MANY_SECONDS = 2.0
"""As many lookups within this time, in any order, mean that a program looks at all names."""
_WHOLE_DIRECTORY = 1024
_MAX_DIRECTORIES = 64


class _Course:
    """Looks at the files, or at the directories, of one directory."""

    __slots__ = ("asked_to", "last_place", "recent", "window")

    def __init__(self) -> None:
        self.last_place = -_NEAR - 1
        self.asked_to = 0
        """Place of the next entry to ask ahead."""
        self.window = 0
        self.recent: deque[float] = deque(maxlen=_MANY)


class ModesAhead:
    """Belongs to the trio thread; nothing here waits."""

    def __init__(self, tree: Tree, resolver: Resolver) -> None:
        self._tree = tree
        self._resolver = resolver
        self._courses: LRUCache[tuple[int, bool, bool], _Course] = LRUCache(_MAX_DIRECTORIES)

    def wanted(self, inode: Inode) -> None:
        """Somebody looks at an entry that was listed and not asked about before."""
        self._look(inode, for_mode=True)

    def metadata_wanted(self, inode: Inode) -> None:
        """Somebody asks for the extended attributes of such a file. Only looks in listing order ask
        ahead: not everybody who copies a few files goes on to all of them.
        """
        if inode.kind is not Kind.DIRECTORY:
            self._look(inode, for_mode=False)

    def _look(self, inode: Inode, *, for_mode: bool) -> None:
        parent = inode.parent
        listing = None if parent is None else self._tree.listings.complete(parent)
        if parent is None or listing is None:
            return
        is_directory = inode.kind is Kind.DIRECTORY
        listed = listing.listed()
        places = listing.directories() if is_directory or listed is None else listed.places
        place = places.get(inode.name)
        if place is None:
            return
        about = parent.number, is_directory, for_mode
        course = self._courses.get(about)
        if course is None:
            course = self._courses[about] = _Course()
        now = trio.current_time()
        course.recent.append(now)
        if 0 < place - course.last_place <= _NEAR:
            course.window = min(2 * course.window, _MAX_WINDOW) or _FIRST_WINDOW
        else:
            course.window = 0
        course.last_place = place
        if (
            for_mode
            and len(course.recent) == _MANY
            and now - course.recent[0] <= _MANY_SECONDS
            and len(places) <= _WHOLE_DIRECTORY
        ):
            begin, end = 0, len(places)
            course.recent.clear()
        else:
            end = place + 1 + course.window
            begin = course.asked_to if place < course.asked_to <= end else place + 1
        if begin < end:
            for name in islice(places, begin, end):
                self._ask(parent, name, is_directory=is_directory, for_mode=for_mode)
        course.asked_to = end

    def _ask(self, parent: Inode, name: str, *, is_directory: bool, for_mode: bool) -> None:
        child = self._tree.table.child(parent, name)
        if child is None:
            return
        if for_mode:
            if not self._tree.is_guess(child):
                return
        elif child.metadata is not None or child.local or child.removed:
            return
        if is_directory:
            self._resolver.ask_mode_ahead(child)
        elif child.info is not None:
            self._resolver.ask_metadata_ahead(child.info)
