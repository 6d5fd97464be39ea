"""Changing attributes: in memory, with the next upload, or by rewriting an object's metadata."""

import time
from functools import partial

from ossfs_py.errors import (
    FilesystemError,
    NoAttributeError,
    NoSuchEntryError,
    NotPermittedError,
    ObjectMissingError,
    OperationUnsupportedError,
    ReadOnlyError,
    StaleInodeError,
    VersionChangedError,
)
from ossfs_py.model import NO_CHANGE, AttributeChange, Attributes, ObjectInfo
from ossfs_py.namespace.attributes import stored_metadata, user_xattrs
from ossfs_py.namespace.entries import Entries
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore

_PERMISSION_BITS = 0o7777
_TRIES = 3
_USER = "user."
_OURS = "user.ossfs."
_UNKNOWN_KINDS = frozenset(
    (b"security.selinux", b"system.posix_acl_access", b"system.posix_acl_default")
)
"""Labels and access control lists. ls(1) asks for one of each kind for every file, until it is
told that the file system has none (EOPNOTSUPP), and not only this file (ENODATA).
"""
_TOLD_BY_HEAD = frozenset({"version-id", "storage-class", "content-type"})


_ABSENT = NoAttributeError("only user. attributes are kept")
_UNSUPPORTED = OperationUnsupportedError("there are no labels and no access control lists")


def why_never(name: bytes) -> FilesystemError | None:
    """Why no file has an extended attribute of that name; None: some may have it."""
    if name in _UNKNOWN_KINDS:
        return _UNSUPPORTED
    return None if name.startswith(b"user.") else _ABSENT


class AttributeWriter:
    """chmod, chown, utimens and extended attributes.

    A change of an object at rest is one copy onto itself with new metadata: the bytes stay, the
    ETag may not, so ``inode.info`` holds another version afterwards. ``defer`` leaves the change
    to the next upload.
    """

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        tree: Tree,
        resolver: Resolver,
        entries: Entries,
    ) -> None:
        self._store = store
        self._workers = workers
        self._tree = tree
        self._resolver = resolver
        self._entries = entries

    async def set_attributes(
        self, inode: Inode, change: AttributeChange, *, defer: bool
    ) -> Attributes:
        """See :meth:`Namespace.set_attributes`."""
        self._require_writable()
        if change != NO_CHANGE:
            if not self._only_in_memory(inode, defer):
                await self._resolver.ensure_metadata(inode)
            if self._only_in_memory(inode, defer):
                self.defer(inode, change)
            elif not self._is_stored(inode, change):
                before = SavedAttributes(inode)
                _apply(inode, change)
                await self._settle(inode, before, defer)
            inode.ctime_ns = time.time_ns()
        return self._tree.attributes(inode)

    def defer(self, inode: Inode, change: AttributeChange) -> None:
        """Change attributes in memory, and leave them to the next upload."""
        self._require_writable()
        if not self._is_stored(inode, change):
            _apply(inode, change)
            self._note_changed(inode)
        inode.ctime_ns = time.time_ns()

    async def flush_attributes(self, inode: Inode) -> None:
        """Store attributes that were deferred to an upload which did not carry them."""
        if inode.metadata_dirty and not self._only_in_memory(inode, defer=False):
            await self._rewrite(inode)

    async def get_xattr(self, inode: Inode, name: bytes) -> bytes:
        """One extended attribute; names outside ``user.`` are answered without a request."""
        if (never := why_never(name)) is not None:
            raise type(never)(*never.args)
        text = _text(name)
        if text is None:
            raise NoAttributeError(f"no attribute {name!r}")
        if text.startswith(_OURS):
            return await self._ours(inode, text)
        if inode.xattrs is None:
            await self._resolver.ensure_metadata(inode)
        try:
            return user_xattrs(inode)[text]
        except KeyError:
            raise NoAttributeError(f"no attribute {text!r}") from None

    async def list_xattrs(self, inode: Inode) -> list[bytes]:
        """Names that programs have set.

        ``user.ossfs.*`` can be asked for but is not listed: programs that copy all attributes of
        a file would fail at setting it.
        """
        if inode.xattrs is None:
            await self._resolver.ensure_metadata(inode)
        return [name.encode("utf-8") for name in user_xattrs(inode)]

    async def set_xattr(
        self, inode: Inode, name: bytes, value: bytes, *, defer: bool = False
    ) -> None:
        """Set one ``user.`` attribute."""
        text = self._settable(name)
        values = await self._own_values(inode)
        if values.get(text) != value:
            await self._store_xattrs(inode, {**values, text: bytes(value)}, defer)

    async def remove_xattr(self, inode: Inode, name: bytes, *, defer: bool = False) -> None:
        """Remove one ``user.`` attribute."""
        text = self._settable(name)
        values = dict(await self._own_values(inode))
        if values.pop(text, None) is None:
            raise NoAttributeError(f"no attribute {text!r}")
        await self._store_xattrs(inode, values, defer)

    # -- inside -----------------------------------------------------------------------------------

    def _require_writable(self) -> None:
        if self._tree.options.read_only:
            raise ReadOnlyError("the mount is read-only")

    def _only_in_memory(self, inode: Inode, defer: bool) -> bool:
        return defer or inode.local or inode.removed or inode is self._tree.table.root

    def _is_stored(self, inode: Inode, change: AttributeChange) -> bool:
        """Whether the change is what is stored already."""
        if inode.metadata_dirty or not inode.metadata:
            return False  # as of what is not stored yet
        stored, now = inode.decoded, self._tree.attributes(inode)
        wanted = (
            (change.mode, now.mode & _PERMISSION_BITS, stored.mode),
            (change.uid, now.uid, stored.uid),
            (change.gid, now.gid, stored.gid),
            (change.mtime_ns, now.mtime_ns, stored.mtime_ns),
            (change.atime_ns, now.atime_ns, stored.atime_ns),
        )
        return all(
            new is None or (new == shown and kept is not None) for new, shown, kept in wanted
        )

    def _note_changed(self, inode: Inode) -> None:
        """The change goes with the next upload, if there is one."""
        inode.metadata_dirty = inode is not self._tree.table.root and not inode.removed

    async def _settle(self, inode: Inode, before: "SavedAttributes", defer: bool) -> None:
        if self._only_in_memory(inode, defer):
            self._note_changed(inode)
            return
        try:
            await self._rewrite(inode)
        except BaseException:
            before.restore(inode)
            raise

    async def _rewrite(self, inode: Inode) -> None:
        """Bring the inode's attributes to its object.

        Raises:
            NoSuchEntryError: never stored.
            StaleInodeError: gone from the store, or another inode has the name now.
            RangeTooLargeError, StoreError
        """
        tree = self._tree
        # Dirty until stored: an answer of the store taken in meanwhile leaves the change alone.
        inode.metadata_dirty = True
        for attempt in range(1, _TRIES + 1):
            info = inode.info
            try:
                if info is not None and not _is_own_marker(inode, info):
                    await self._copy_onto_itself(inode, info)
                elif inode.kind is Kind.DIRECTORY:
                    await self._entries.write_marker(inode)
                else:
                    raise NoSuchEntryError(f"{inode.name!r} is not in the store")
                break
            except VersionChangedError:
                if attempt == _TRIES:
                    raise
                inode.fresh_until = 0.0
                inode.metadata = None
                await self._resolver.ensure_metadata(inode)
            except ObjectMissingError as exc:
                if inode.kind is not Kind.DIRECTORY or attempt == _TRIES:
                    tree.vanished(inode)
                    raise StaleInodeError(f"{inode.name!r} is gone from the store") from exc
                inode.info = None  # the marker is gone, the directory need not be
        inode.metadata_dirty = False
        tree.changed(inode, new=False)

    async def _copy_onto_itself(self, inode: Inode, info: ObjectInfo) -> None:
        stored = stored_metadata(inode, self._tree.options, with_times=True)
        with self._tree.changing.during(inode):
            version = await self._workers.run(
                partial(
                    self._store.copy,
                    info.version,
                    info.key,
                    metadata=stored,
                    content_type=info.content_type,
                    like=info,
                )
            )
            self._tree.stored(inode, version, stored, copied_from=info.version)

    async def _ours(self, inode: Inode, name: str) -> bytes:
        asked = name.removeprefix(_OURS)
        if inode.info is not None and asked != "etag":
            await self._resolver.ensure_metadata(inode)
            if asked in _TOLD_BY_HEAD and not self._told(inode.info, asked):
                # After an upload by this mount, only the ETag is known.
                await self._resolver.ask_again(inode)
        info = inode.info
        value = None if info is None else self._told(info, asked)
        if info is not None and asked == "owner" and value is None:
            value = await self._workers.run(self._store.owner, info.key)
        if not value:
            raise NoAttributeError(f"no attribute {name!r}")
        return value.encode("utf-8", "surrogateescape")

    @staticmethod
    def _told(info: ObjectInfo, asked: str) -> str | None:
        return {
            "etag": info.etag,
            "version-id": info.version_id,
            "storage-class": info.storage_class,
            "content-type": info.content_type,
            "owner": info.owner,
        }.get(asked)

    def _settable(self, name: bytes) -> str:
        self._require_writable()
        text = _text(name)
        if text is None or not text.startswith(_USER):
            raise OperationUnsupportedError(f"attribute {name!r} cannot be kept")
        if text.startswith(_OURS):
            raise NotPermittedError(f"attribute {text!r} is the store's to say")
        return text

    async def _own_values(self, inode: Inode) -> dict[str, bytes]:
        if inode.xattrs is None:
            await self._resolver.ensure_metadata(inode)
        return user_xattrs(inode)

    async def _store_xattrs(self, inode: Inode, values: dict[str, bytes], defer: bool) -> None:
        before = SavedAttributes(inode)
        inode.xattrs = values
        try:
            # Too much is told at the call that asks for it, not at the upload that carries it.
            stored_metadata(inode, self._tree.options, with_times=True)
        except BaseException:
            before.restore(inode)
            raise
        await self._settle(inode, before, defer)
        inode.ctime_ns = time.time_ns()


class SavedAttributes:
    """The attributes of an inode before a change that may fail."""

    __slots__ = ("_values",)

    _FIELDS = (
        "mode",
        "uid",
        "gid",
        "atime_ns",
        "mtime_ns",
        "ctime_ns",
        "mtime_explicit",
        "xattrs",
        "metadata_dirty",
    )

    def __init__(self, inode: Inode) -> None:
        self._values = [getattr(inode, field) for field in self._FIELDS]

    def restore(self, inode: Inode) -> None:
        """Take the change back."""
        for field, value in zip(self._FIELDS, self._values, strict=True):
            setattr(inode, field, value)


def _apply(inode: Inode, change: AttributeChange) -> None:
    if change.mode is not None:
        inode.mode = change.mode & _PERMISSION_BITS
    if change.uid is not None:
        inode.uid = change.uid
    if change.gid is not None:
        inode.gid = change.gid
    if change.atime_ns is not None:
        inode.atime_ns = change.atime_ns
    if change.mtime_ns is not None:
        inode.mtime_ns = change.mtime_ns
        inode.mtime_explicit = True


def _is_own_marker(inode: Inode, info: ObjectInfo) -> bool:
    """Whether a marker was written here, and no answer of the store has shown another one since.

    It is written anew by one request; a copy asks first what is stored with it.
    """
    return not inode.mtime_settled and inode.marker_made == info.version


def _text(name: bytes) -> str | None:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None
