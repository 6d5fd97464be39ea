"""Renames that a dead daemon left half done."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from ossfs_py.errors import ObjectMissingError, StoreError
from ossfs_py.model import ObjectInfo
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.markers import markers_above
from ossfs_py.store.trees import copy_object, from_the_bottom, from_the_top, pages_below
from ossfs_py.writing.filerenames import FileRenameRecord
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.removals import RemovalRecord
from ossfs_py.writing.renames import RenameRecord

log = logging.getLogger(__name__)

_AT_ONCE = 8


def settle_renames(journal: Journal, store: ObjectStore) -> int:
    """Finish or undo interrupted renames; returns the number of deleted objects. Those that the
    store does not let it settle stay in the journal.
    """
    done = sum(_settle_file(journal, store, each) for each in journal.leftover_file_renames())
    for rename in journal.leftover_renames():
        if rename.is_copied or rename.is_promised:
            journal.move_leftovers(rename)
        try:
            if rename.is_promised:
                done += _keep_promise(journal, store, rename)
            else:
                done += _settle_rename(store, rename)
        except StoreError as exc:
            log.warning("a rename of %r that was cut short stays so: %s", rename.old_prefix, exc)
            if rename.first_tried_ns is None:
                journal.write_rename(replace(rename, first_tried_ns=time.time_ns()))
            continue
        journal.forget_rename(rename.old_prefix)
    return done


def _settle_file(journal: Journal, store: ObjectStore, rename: FileRenameRecord) -> int:
    """Carry out the rename of a stored file that its program takes for done; returns how many
    objects were deleted. What has the new name already was copied, or stored there since.
    """
    log.warning("a rename of %r to %r is finished", rename.old_key, rename.new_key)
    removed = {record.key: record for record in journal.leftover_removals()}
    try:
        info = _present(store, rename.old_key)
        is_ours = (
            info is not None
            and info.etag == rename.etag
            and not _is_removed(info, removed.get(info.key))
        )
        if info is not None and is_ours:
            if _present(store, rename.new_key) is None:
                copy_object(store, info, rename.new_key)
            store.delete(rename.old_key)
    except StoreError as exc:
        log.warning("a rename of %r that was cut short stays so: %s", rename.old_key, exc)
        return 0
    journal.forget_file_rename(rename.ident)
    return int(is_ours)


def _present(store: ObjectStore, key: str) -> ObjectInfo | None:
    try:
        return store.head(key)
    except ObjectMissingError:
        return None


def _settle_rename(store: ObjectStore, rename: RenameRecord) -> int:
    """Leave each object of an interrupted rename under one key; returns how many had two.

    When the rename began, nothing but perhaps a marker was below the new prefix, and nothing is
    deleted before everything is copied. If everything is copied, the old keys are deleted.
    Otherwise the copies are, and the rename can be tried again.
    """

    def below(prefix: str) -> dict[str, ObjectInfo]:
        return {info.key[len(prefix) :]: info for info in _everything_below(store, prefix)}

    old, new = below(rename.old_prefix), below(rename.new_prefix)
    both = [name for name, copy in new.items() if name in old and old[name].size == copy.size]
    finished = rename.is_copied
    if finished is None:  # an object that has only its new key proves it, too
        finished = any(name not in old for name in new)
    log.warning(
        "a rename of %r to %r was cut short: %s",
        rename.old_prefix,
        rename.new_prefix,
        "finishing it" if finished else "taking it back, try again",
    )
    if not finished and rename.over_directory:
        both = [name for name in both if name]
    until_ns = rename.first_tried_ns
    if until_ns is not None:
        both = [name for name in both if (old if finished else new)[name].mtime_ns <= until_ns]
    keys = [(rename.old_prefix if finished else rename.new_prefix) + name for name in both]
    _delete(store, keys)
    return len(keys)


def _keep_promise(journal: Journal, store: ObjectStore, rename: RenameRecord) -> int:
    """Carry out a rename that its program takes for done; returns how many objects it moved.

    What has its new name already was copied, or stored there since.
    """
    log.warning("a rename of %r to %r is finished", rename.old_prefix, rename.new_prefix)
    removed = {record.key: record for record in journal.leftover_removals()}
    until_ns = rename.first_tried_ns
    old = [
        info
        for info in _everything_below(store, rename.old_prefix)
        if not _is_removed(info, removed.get(info.key))
        and (until_ns is None or info.mtime_ns <= until_ns)
    ]
    there = {info.key: info for info in _everything_below(store, rename.new_prefix)}
    if not rename.is_copied:
        if rename.over_directory:
            there.pop(rename.new_prefix, None)  # the marker of the directory that it replaces
        missing = [info for info in old if rename.moved(info.key) not in there]
        etags = {**_copied(old, there, rename), **_copy(store, rename, missing)}
        rename = replace(rename, is_copied=True, etags=etags)
        journal.write_rename(rename)
        journal.move_leftovers(rename)
        there.update((rename.moved(info.key), info) for info in old)
    moved = [info.key for info in old if rename.moved(info.key) in there]
    _delete(store, {*moved, *markers_above(moved, rename.old_prefix)})
    return len(moved)


def _copied(
    old: Sequence[ObjectInfo], there: Mapping[str, ObjectInfo], rename: RenameRecord
) -> dict[str, str]:
    """The ETags of the copies that the dead daemon had made, by those of what was copied."""
    pairs = [(info, there.get(rename.moved(info.key))) for info in old]
    return {
        info.etag: copy.etag
        for info, copy in pairs
        if copy is not None and copy.size == info.size and copy.mtime_ns >= info.mtime_ns
    }


def _is_removed(info: ObjectInfo, removal: RemovalRecord | None) -> bool:
    return removal is not None and (removal.unheard_size is not None or removal.is_of(info))


def _copy(
    store: ObjectStore, rename: RenameRecord, objects: Sequence[ObjectInfo]
) -> Mapping[str, str]:
    """Copy objects to their new names; returns the ETags of the copies, by those of what was
    copied.
    """
    etags: dict[str, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for level in from_the_top(objects):
            copies = threads.map(
                lambda info: copy_object(store, info, rename.moved(info.key)), level
            )
            etags.update((source.etag, copy.etag) for source, copy in filter(None, copies))
    return etags


def _delete(store: ObjectStore, keys: Collection[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for level in from_the_bottom(keys):
            for _ in threads.map(store.delete, level):
                pass


def _everything_below(store: ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
    return chain.from_iterable(pages_below(store.list_page, prefix))
