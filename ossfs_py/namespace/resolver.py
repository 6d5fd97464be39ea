"""Asking the store what a name or an inode is, once for everybody who wants to know."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import trio

from ossfs_py.errors import (
    NoSuchEntryError,
    NotADirectoryPathError,
    ObjectMissingError,
    StaleInodeError,
    StoreError,
)
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.bursts import Bursts
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.keys import fits
from ossfs_py.namespace.listing.merge import DIRECTORY
from ossfs_py.namespace.madetrees import MadeTrees
from ossfs_py.namespace.names import MAX_NAME_BYTES
from ossfs_py.namespace.pending import Pending
from ossfs_py.namespace.questions import NOTHING_BELOW, Answers, Below, Question, answers_of
from ossfs_py.namespace.removed import Catalogue
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers

_TRIES = 3
"""Questions about one mode, should answers cross those to others or changes made here."""
_MAX_AHEAD = 4000
"""Objects asked ahead of a program at most: what four LIST pages name."""
_FEW_NAMES = 100
"""A directory of so many names is listed by as short an answer as one about a single name."""
_NAMESAKES = 16
"""Names that are checked for one that is likely to be absent: more names with the same beginning
are rare, and cost a second request."""


class Resolver:
    """Lookups and refreshes: at most one request about a key in flight."""

    def __init__(self, store: Catalogue, workers: Workers, tree: Tree) -> None:
        self._store = store
        self._workers = workers
        self._tree = tree
        self._questions: dict[tuple[str, bool, bool], Question] = {}
        self._bursts = Bursts()
        self.made = MadeTrees(store.list_page, workers, tree)

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """The entry ``name`` of a directory; HEAD and LIST are sent at once where needed.

        Raises:
            NoSuchEntryError, NotADirectoryPathError, NameTooLongError, StoreError
        """
        tree = self._tree
        if parent.kind is not Kind.DIRECTORY:
            raise NotADirectoryPathError(f"{parent.name!r} is no directory")
        may_list = True
        while True:
            key = tree.keys.child_key(parent, name)
            if parent.removed or tree.keys.is_reserved(parent, name):
                raise NoSuchEntryError(key)
            known = tree.fresh_child(parent, name)
            if known is not None:
                return known
            if self._known_absent_seconds(parent, name) or await self._is_told_absent(parent, name):
                self._bursts.missed(parent.number)
                raise NoSuchEntryError(key)
            known = tree.table.child(parent, name)
            if known is None and tree.options.negative_ttl_seconds > 0:
                question = Question(key, tree.changes.serial)
                told = await self._told_by_directory(parent, name, question)
                if told is not None:
                    if self._is_overtaken(parent, name, question):
                        continue
                    return self._take_in(parent, name, question, None, told)
            if may_list:
                may_list = False
                if await self._is_listed_again(parent, name):
                    continue
            question = self._ask(key, head=True, below=True, known=known)
            head, below = await self._answers(question)
            if self._is_overtaken(parent, name, question):
                continue
            return self._take_in(parent, name, question, head, below)

    def _known_absent_seconds(self, parent: Inode, name: str) -> float:
        """For how long nothing has to be asked to say that there is no such name."""
        left_seconds = self._tree.absent_seconds(parent, name)
        if left_seconds > 0 and self.made.look_ahead(parent, left_seconds):
            return self._tree.absent_seconds(parent, name)
        return left_seconds

    async def _is_told_absent(self, parent: Inode, name: str) -> bool:
        """As :meth:`_known_absent_seconds`, by the answer for a tree that was made here."""
        tree = self._tree
        if tree.table.child(parent, name) is not None or not await self.made.look(parent):
            return False
        return parent.removed or tree.listings.lacks(parent, name)

    def entry_nowait(self, parent: int, name: bytes) -> Inode | float | None:
        """The entry of a directory for which the kernel asks, if it is known and nobody needs to
        ask the store, or for how many seconds the kernel, which is told so, may take it for absent;
        None if :meth:`lookup` has to find out, also what is wrong with the name.
        """
        tree = self._tree
        directory = tree.table.find(parent)
        if (
            directory is None
            or directory.kind is not Kind.DIRECTORY
            or directory.removed  # as whatever is stale
            or len(name) > MAX_NAME_BYTES
            or name in (b".", b"..")
        ):
            return None
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        if tree.keys.is_reserved(directory, text):
            return None
        known = tree.fresh_child(directory, text)
        if known is not None:
            tree.absences.untell(parent, text)
            return known
        seconds = self._known_absent_seconds(directory, text)
        if not seconds or not fits(tree.keys.marker_key_of(directory) + text):
            return None
        self._bursts.missed(parent)
        tree.absences.tell(parent, text)
        return seconds

    async def _is_listed_again(self, parent: Inode, name: str) -> bool:
        """Where a program has listed a directory and asks for its names in their order, have one
        page of a listing answer for this name and those to come; False: ask for this one.
        """
        tree, number = self._tree, parent.number
        options = tree.options
        if (
            options.posix_metadata  # for which a listing tells too little
            or options.metadata_ttl_seconds <= 0
            or not tree.listings.was_read(parent)
        ):
            return False
        before = self._bursts.name_before(number, name)
        if before is None:
            return False
        try:
            listed = await tree.listings.list_part(parent, before)
        except StoreError:
            return False  # the question that follows will be told
        if tree.fresh_child(parent, name) is None:
            self._bursts.useless(number)
            return False
        self._bursts.answered_until(number, max(listed))
        return True

    async def _is_absent(self, parent: Inode, name: str, question: Question) -> bool:
        """Ask in the way that costs least where a name is absent; False: it may be there.

        One listing of the directory answers for the names to come, too; where it is more than a
        page, one request about the name does.
        """
        tree, bursts = self._tree, self._bursts
        options = tree.options
        try:
            if not bursts.is_large(parent.number):
                oldest = question.asked_at - options.negative_ttl_seconds
                listing = await tree.listings.look(parent, oldest)
                if listing is not None and listing.index is not None:
                    question.asked_at = listing.started
                    return name not in listing.index
                bursts.found_large(parent.number)
                question.asked_at = trio.current_time()
            return not await self._workers.run(self._may_be_there, question.key)
        except StoreError:
            return False  # the question that follows will be told

    async def _told_by_directory(
        self, parent: Inode, name: str, question: Question
    ) -> Below | None:
        """Whether a name that is not known is absent, or a directory, if a listing of its parent is
        the cheapest way to ask; None: ask for it.
        """
        if self._bursts.expects_absence(parent.number) and await self._is_absent(
            parent, name, question
        ):
            return NOTHING_BELOW
        listing = self._tree.listings.complete(parent)
        if (
            listing is None
            or listing.index is None
            or len(listing.index) > _FEW_NAMES
            or isinstance(listing.index.get(name), ObjectInfo)
            or not fits(question.key + "/")
        ):
            return None
        return await self._told_by_two(parent, name, question, flat=not listing.directories())

    async def _told_by_two(
        self, parent: Inode, name: str, question: Question, *, flat: bool
    ) -> Below | None:
        """As :meth:`_told_by_directory`, of a directory that was small when it was made or listed:
        a listing of it also tells of the names that are asked for next (rename(2) asks for two).
        Beside it a HEAD of the marker, as a listing does not tell a directory's mode. ``flat``: no
        directory was in it, and the listing tells what is in those that others have made since.
        """
        marker = self._ask(question.key + "/", head=True, below=False)
        oldest = question.asked_at - self._tree.options.negative_ttl_seconds
        try:
            listings = self._tree.listings
            look = listings.look_below if flat else listings.look
            listing = await look(parent, oldest)
        except StoreError:
            return None  # the question that follows will be told
        if listing is None or listing.index is None:
            return None
        question.asked_at = listing.started
        entry = listing.index.get(name)
        if entry is None:
            return NOTHING_BELOW if listing.complete else None
        told, _ = await self._answers(marker)
        if entry is not DIRECTORY or isinstance(told, StoreError):
            return None
        return Below(True, told)

    def _may_be_there(self, key: str) -> bool:
        """Whether one LIST leaves open that the store has the key, or keys below it.

        Blocking; on a worker thread. Names that begin with this one come in the same answer, those
        with a character below the slash before what is in the directory.
        """
        page = self._store.list_page(ListQuery(key, max_keys=_NAMESAKES))
        return (
            page.next_token is not None
            or key + "/" in page.prefixes
            or any(info.key == key for info in page.objects)
        )

    def lookup_ahead(self, parent: Inode, name: str) -> None:
        """Ask for an entry that will be looked up soon; never waits.

        Not behind urgent work: the lookup itself may join the question.
        """
        tree = self._tree
        if (
            parent.removed
            or tree.keys.is_reserved(parent, name)
            or tree.fresh_child(parent, name) is not None
            or tree.is_known_absent(parent, name)
            or len(self._questions) >= _MAX_AHEAD
        ):
            return
        key = tree.keys.child_key(parent, name)
        known = tree.table.child(parent, name)
        question = self._ask(key, head=True, below=True, known=known)
        question.expected = (parent, name)

    def _is_overtaken(self, parent: Inode, name: str, question: Question) -> bool:
        """Whether this mount changed the name or the directory's while the store was asked."""
        tree = self._tree
        if tree.changes.since(question.key, question.serial):
            return True
        return tree.keys.marker_key_of(parent) + name != question.key

    def ask_head(self, key: str) -> Pending[ObjectInfo]:
        """Request one object, metadata included; concurrent callers share the request."""
        head = self._ask(key, head=True, below=False).head
        assert head is not None  # noqa: S101 - asked for in the line above
        return head

    def ask_ahead(self, infos: Iterable[ObjectInfo]) -> None:
        """Ask, behind urgent work, for the metadata of listed objects that must be asked."""
        for info in infos:
            if self._tree.must_ask(info):
                self.ask_metadata_ahead(info)

    def ask_metadata_ahead(self, info: ObjectInfo) -> None:
        """Ask, behind urgent work, for the metadata of a listed object that will be wanted."""
        if (
            len(self._questions) < _MAX_AHEAD
            and self._tree.metadata.complete(info).metadata is None
            and (info.key, True, False) not in self._questions
        ):
            self._ask(info.key, head=True, below=False, urgent=False)

    def ask_mode_ahead(self, directory: Inode) -> None:
        """Ask, behind urgent work, for the mode of a directory that will be wanted."""
        if len(self._questions) < _MAX_AHEAD and self._tree.is_guess(directory):
            self._ask_marker(directory, urgent=False)

    async def refresh(self, inode: Inode) -> None:
        """Make sure that what is known of the inode is fresh, asking the store if it is not.

        Raises:
            StaleInodeError: what the inode stands for is gone from the store, or another inode has
                its name. Who has a name looks it up again.
            StoreError
        """
        while not self._tree.is_fresh(inode):
            if await self._refresh_once(inode):
                return

    async def head(self, key: str) -> ObjectInfo | None:
        """The store's current answer about a key; None if it does not exist.

        Raises:
            StoreError
        """
        try:
            return await self._workers.run(partial(self._store.head, key))
        except ObjectMissingError:
            return None

    async def ask_again(self, inode: Inode) -> None:
        """Ask about a stored file whatever is remembered; the answer is younger than the call.

        Raises:
            StaleInodeError, StoreError: as of :meth:`refresh`.
        """
        while not (inode.local or inode.removed):
            # Requests in flight may have been answered before the call.
            slot = (self._tree.keys.key_of(inode), True, False)
            under_way = self._questions.get(slot)
            if under_way is not None:
                await self._answers(under_way)
            elif await self._refresh_once(inode):
                return

    async def ensure_metadata(self, inode: Inode) -> None:
        """Make sure that the metadata of the inode's current version is known.

        Raises:
            StaleInodeError, StoreError: as of :meth:`refresh`.
        """
        if inode.stale:
            raise StaleInodeError(f"{inode.name!r} was replaced or removed by others")
        while inode.metadata is None and not inode.local and not inode.removed:
            if inode is self._tree.table.root or await self._refresh_once(inode):
                return

    async def ask_mode(self, inode: Inode) -> None:
        """Learn mode and owner of an inode whose existence is known and whose mode is guessed.

        Raises:
            StaleInodeError, StoreError: as of :meth:`refresh`.
        """
        tree = self._tree
        for _ in range(_TRIES):
            if not tree.is_guess(inode) or tree.recall(inode):
                return
            if inode.kind is not Kind.DIRECTORY:
                await self._refresh_once(inode)
                continue
            head, _below = await self._answers(self._ask_marker(inode))
            if isinstance(head, StoreError):
                raise head

    async def ensure_described(self, inode: Inode) -> None:
        """Make sure that what describes a stored file's current version is known in full: a LIST
        tells less than a HEAD, and so do remembered answers.

        Raises:
            StaleInodeError, StoreError: as of :meth:`refresh`.
        """
        await self.ensure_metadata(inode)
        while (
            inode.kind is not Kind.DIRECTORY
            and inode.info is not None
            and inode.info.described is None
            and not (inode.local or inode.removed)
        ):
            if await self._refresh_once(inode):
                return

    async def list_page(self, query: ListQuery) -> ListPage:
        """A page of what there is, whatever is remembered of it.

        Raises:
            StoreError
        """
        return await self._workers.run(self._store.list_page, query)

    async def first_below(self, directory: Inode) -> str | None:
        """The first key in the directory but its marker, or the marker if that has content.

        Raises:
            StoreError
        """
        prefix = self._tree.keys.marker_key_of(directory)
        token: str | None = None
        while True:
            page = await self.list_page(ListQuery(prefix, token=token, max_keys=2))
            keys = [info.key for info in page.objects if info.key != prefix or info.size]
            if keys or page.prefixes or page.next_token in (None, token):
                return min([*keys, *page.prefixes], default=None)
            token = page.next_token  # the marker, and a page of what was removed here

    async def _refresh_once(self, inode: Inode) -> bool:
        """One question; False if a local change overtook it."""
        tree = self._tree
        key = tree.keys.key_of(inode)
        is_directory = inode.kind is Kind.DIRECTORY
        question = self._ask(key, head=not is_directory, below=is_directory, known=inode)
        head, below = await self._answers(question)
        if inode.removed:
            return True
        if tree.changes.since(key, question.serial) or tree.keys.key_of(inode) != key:
            return False
        for failure in (head, below):
            if isinstance(failure, StoreError):
                raise failure
        if isinstance(below, Below) and below.exists:
            if inode.parent is not None:
                tree.adopt_directory(
                    inode.parent,
                    inode.name,
                    question.asked_at,
                    marker=below.marker,
                    marker_asked=True,
                )
        elif isinstance(head, ObjectInfo):
            if tree.relearn(inode, head, question.asked_at) is not inode:
                raise StaleInodeError(f"{key!r} is another file now")
        else:
            self._gone(inode, question.asked_at)
        return True

    def _gone(self, inode: Inode, asked_at: float) -> None:
        if self._tree.holds_unsaved(inode):
            self._tree.refreshed(inode, asked_at)
            return
        self._tree.vanished(inode)
        raise StaleInodeError(f"{inode.name!r} is gone from the store")

    def _take_in(
        self,
        parent: Inode,
        name: str,
        question: Question,
        head: ObjectInfo | StoreError | None,
        below: Below | StoreError | None,
    ) -> Inode:
        tree = self._tree
        if isinstance(below, Below) and below.exists:
            if isinstance(head, ObjectInfo) and head.size:
                tree.listings.conflict(question.key)
            return tree.found(
                tree.adopt_directory(
                    parent, name, question.asked_at, marker=below.marker, marker_asked=True
                )
            )
        if isinstance(head, ObjectInfo):
            return tree.found(tree.adopt_object(parent, name, head, question.asked_at))
        # Either half may be forbidden or fail; a definite answer of the other half is enough,
        # but absence has to be told by both.
        for failure in (head, below):
            if failure is not None and not isinstance(failure, Below):
                raise failure
        child = tree.table.child(parent, name)
        if child is not None:
            if tree.holds_unsaved(child):
                return child  # written here, and about to be in the store
            tree.vanished(child)
        tree.absences.add(question.key, question.asked_at)
        self._bursts.missed(parent.number)
        raise NoSuchEntryError(question.key)

    def _ask(
        self,
        key: str,
        *,
        head: bool,
        below: bool,
        known: Inode | None = None,
        urgent: bool = True,
    ) -> Question:
        """Join the request in flight, unless a local change has overtaken it; otherwise send a new
        one."""
        slot = (key, head, below)
        question = self._questions.get(slot)
        if question is not None and not self._tree.changes.since(key, question.serial):
            return question
        question = self._questions[slot] = Question(key, self._tree.changes.serial)
        retire = partial(self._retire, slot, question)
        if head:
            question.head = Pending(
                self._workers, partial(self._store.head, key), urgent=urgent, on_settled=retire
            )
        if below:
            marker = known.info if known is not None and known.kind is Kind.DIRECTORY else None
            question.below = Pending(
                self._workers, partial(self._look_below, key, marker), on_settled=retire
            )
        return question

    def _ask_marker(self, directory: Inode, *, urgent: bool = True) -> Question:
        """Ask for the marker of a directory; the answer is taken in as soon as it comes."""
        key = self._tree.keys.marker_key_of(directory)
        question = self._ask(key, head=True, below=False, urgent=urgent)
        question.marker_of = directory
        return question

    def _take_in_marker(self, directory: Inode, question: Question) -> None:
        tree = self._tree
        head, _ = answers_of(question)
        if (
            not isinstance(head, StoreError)
            and tree.keys.marker_key_of(directory) == question.key
            and not tree.changes.since(tree.keys.key_of(directory), question.serial)
        ):
            tree.marker_told(directory, head)

    def _retire(self, slot: tuple[str, bool, bool], question: Question) -> None:
        if not question.settled:
            return
        if self._questions.get(slot) is question:
            del self._questions[slot]
        head = question.head if question.below is None else None
        if head is not None and not isinstance(head.error, StoreError):  # who waits is told
            self._tree.metadata.remember(head.result())
        if question.marker_of is not None:
            self._take_in_marker(question.marker_of, question)
        if question.expected is not None:
            parent, name = question.expected
            if not parent.removed and not self._is_overtaken(parent, name, question):
                with suppress(StoreError, NoSuchEntryError):  # the lookup will be told
                    self._take_in(parent, name, question, *answers_of(question))

    @staticmethod
    async def _answers(question: Question) -> Answers:
        for part in (question.head, question.below):
            if part is not None and not part.settled:
                await part.wait_settled()
        return answers_of(question)

    def _look_below(self, key: str, known_marker: ObjectInfo | None) -> Below:
        """Blocking; on a worker thread. The marker sorts first of all keys below."""
        prefix = key + "/"
        if not fits(prefix):
            return Below(False, None)  # asked for such a prefix, AWS answers with an error
        page = self._store.list_page(ListQuery(prefix, max_keys=1))
        marker = next((info for info in page.objects if info.key == prefix), None)
        exists = bool(page.objects or page.prefixes)
        if marker is None:
            return Below(exists, None)
        if (
            known_marker is not None
            and known_marker.metadata is not None
            and known_marker.etag == marker.etag
            and known_marker.mtime_ns // 10**9 == marker.mtime_ns // 10**9
        ):
            return Below(exists, known_marker)
        try:
            return Below(exists, self._store.head(prefix))
        except ObjectMissingError:  # deleted between the two requests
            return Below(exists, None)
