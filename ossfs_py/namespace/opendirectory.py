"""One open directory: hands out a listing's entries as inodes, in batches."""

from bisect import bisect_right

from ossfs_py.errors import ObjectMissingError, StoreError, StoreUnavailableError
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.listing.merge import DIRECTORY, LOCAL, REMOVED, Entry
from ossfs_py.namespace.listing.reading import Listing, ListingPage
from ossfs_py.namespace.newfiles import new_files
from ossfs_py.namespace.pending import Pending
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import Tree

BATCH_ENTRIES = 250
"""Entries per answer: several replies of the kernel's 4-128 KiB buffers, and few enough that the
first of a directory whose objects must all be asked is out after some round trips."""


class DirectoryListing:
    """A directory handle. Offsets are positions in the listing begun at the last rewind."""

    def __init__(self, tree: Tree, resolver: Resolver, directory: Inode) -> None:
        self._tree = tree
        self._resolver = resolver
        self._directory = directory
        self._listing: Listing | None = None
        self._chunk = ListingPage(0, {})
        self._pages: list[ListingPage] = []
        """The pages passed, without their entries, to go back to."""
        self._is_begun = False
        """Whether anything was handed out since the last rewind."""
        self._new_since = 0.0
        """When the files that were told last were asked for."""

    @property
    def directory(self) -> Inode:
        """The directory that is listed."""
        return self._directory

    def rewind(self) -> None:
        """Begin again; changes made since are seen."""
        self._listing = None
        self._is_begun = False

    async def entries_from(self, offset: int) -> list[tuple[int, str, Inode]]:
        """A batch of (next offset, name, inode) from ``offset`` on; empty at the end.

        Offset 0 after anything was handed out begins again. Lookup counts are not touched.

        Raises:
            StoreError
        """
        while (listing := await self._reach(offset)) is not None:
            start = max(offset, self._chunk.base)
            stop = min(start + BATCH_ENTRIES, self._chunk.end)
            batch = await self._batch(listing, self._chunk, start, stop)
            if batch:
                self._is_begun = True
                return batch
            offset = stop
        return []

    async def new_files_from(self, offset: int, most: int) -> list[tuple[str, ObjectInfo]]:
        """At most so many files from ``offset`` on of which nothing is known but what the listing
        tells, as most of a large directory that is listed for the first time. None if another entry
        is there, or on the same page: :meth:`entries_from` tells then.

        Raises:
            StoreError
        """
        listing = await self._reach(offset)
        chunk = self._chunk
        if (
            listing is None
            or self._tree.options.posix_metadata
            or not listing.is_as_listed(chunk)
            or not chunk.has_only_files()
        ):
            return []
        self._new_since = listing.started
        start = max(offset, chunk.base)
        prefix = self._tree.keys.marker_key_of(self._directory)
        return new_files(self._tree, self._directory, prefix, chunk.part(start, start + most))

    def adopt(self, files: list[tuple[str, ObjectInfo]]) -> list[Inode]:
        """The inodes of files that :meth:`new_files_from` has just told, each with a reference of
        the kernel.
        """
        self._is_begun = True
        fresh_until = self._new_since + self._tree.options.metadata_ttl_seconds
        return self._tree.table.new_files(self._directory, files, fresh_until)

    async def _reach(self, offset: int) -> Listing | None:
        """The listing, when the page that has ``offset`` is here; None at the end."""
        if offset == 0 and self._is_begun:
            self.rewind()
        if self._listing is None:
            await self._resolver.made.confirm(self._directory)
        listing = self._position(offset)
        while max(offset, self._chunk.base) >= self._chunk.end:
            following = await listing.after(self._chunk)
            if following is None:
                return None
            self._chunk = following
            self._note_page(following)
        return listing

    def _position(self, offset: int) -> Listing:
        """The listing to read, with the cursor at or before ``offset``."""
        listing = self._listing
        if listing is None:
            listing = self._listing = self._tree.listings.open(self._directory)
            self._chunk = listing.begin_reading()
            self._pages = []
            self._note_page(self._chunk)
        elif offset < self._chunk.base:
            # A seek back past what is kept: the page is asked for again.
            place = max(0, bisect_right(self._pages, offset, key=lambda page: page.base) - 1)
            listing = self._tree.listings.resume(self._directory, self._pages[place])
            self._listing = listing
            self._chunk = listing.begin_reading()
        return listing

    def _note_page(self, chunk: ListingPage) -> None:
        if not self._pages or (chunk.base > self._pages[-1].base and not chunk.is_tail):
            place = ListingPage(chunk.base, {}, token=chunk.token, carried=chunk.carried)
            self._pages.append(place)

    async def _batch(
        self, listing: Listing, chunk: ListingPage, start: int, stop: int
    ) -> list[tuple[int, str, Inode]]:
        listed = chunk.part(start, stop)
        # While the answers for these travel, those for the next batch can.
        following = chunk.part(stop, stop + BATCH_ENTRIES)
        self._resolver.ask_ahead(e for _name, e in following if isinstance(e, ObjectInfo))
        answers = await self._ask_where_needed(listing, chunk, listed)
        prefix = self._tree.keys.marker_key_of(self._directory)
        batch: list[tuple[int, str, Inode]] = []
        is_as_listed = listing.is_as_listed(chunk)
        for position, (name, entry) in enumerate(listed, start + 1):
            state = entry if is_as_listed else listing.current(name, entry, chunk)
            if state is REMOVED:
                continue
            inode = self._inode(prefix, name, state, answers.get(name), listing.started)
            if inode is not None:
                batch.append((position, name, inode))
        return batch

    def _inode(
        self,
        prefix: str,
        name: str,
        entry: Entry,
        asked: ObjectInfo | bool | None,
        started: float,
    ) -> Inode | None:
        tree, directory = self._tree, self._directory
        if entry is LOCAL:
            return tree.table.child(directory, name)
        if entry is DIRECTORY:
            marker = asked if isinstance(asked, ObjectInfo) else None
            return tree.adopt_directory(
                directory, name, started, marker=marker, marker_asked=asked is not None
            )
        if asked is False and not self._known(name):
            return None  # gone between LIST and HEAD
        if isinstance(asked, ObjectInfo) and asked.key == entry.key:
            entry = asked
        return tree.adopt_object(directory, name, entry, started, prefix=prefix)

    def _is_asked(self, name: str) -> bool:
        child = self._tree.table.child(self._directory, name)
        return child is not None and child.metadata is not None and self._tree.is_fresh(child)

    def _known(self, name: str) -> bool:
        child = self._tree.table.child(self._directory, name)
        return child is not None and (child.local or child.size_source is not None)

    async def _ask_where_needed(
        self, listing: Listing, chunk: ListingPage, listed: list[tuple[str, Entry]]
    ) -> dict[str, ObjectInfo | bool | None]:
        """HEAD answers by name, all in parallel; False for what is gone."""
        tree = self._tree
        questions: dict[str, Pending[ObjectInfo]] = {}
        is_as_listed, asks_all = listing.is_as_listed(chunk), tree.options.posix_metadata
        for name, entry in listed:
            if is_as_listed and not asks_all and isinstance(entry, ObjectInfo) and entry.size:
                continue  # most entries of most listings
            state = listing.current(name, entry, chunk)
            if state is REMOVED or state is LOCAL:
                continue
            if state is DIRECTORY:
                if tree.options.posix_metadata and not self._is_asked(name):
                    prefix = tree.keys.marker_key_of(self._directory)
                    questions[name] = self._resolver.ask_head(f"{prefix}{name}/")
            elif (
                tree.must_ask(state)
                and not self._is_asked(name)
                and tree.metadata.complete(state).metadata is None
            ):
                questions[name] = self._resolver.ask_head(state.key)
        answers: dict[str, ObjectInfo | bool | None] = {}
        for name, question in questions.items():
            try:
                info = await question.wait()
                tree.metadata.remember(info)
                answers[name] = info
            except ObjectMissingError:
                answers[name] = False
            except StoreUnavailableError:
                raise
            except StoreError:
                # Forbidden, encrypted with another key, or odd: shown as it is listed.
                answers[name] = None
        return answers
