"""Files of which nothing is known but what a listing tells: most of those that are listed."""

from typing import cast

from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.listing.merge import Entry
from ossfs_py.namespace.tree import Tree


def new_files(
    tree: Tree, directory: Inode, prefix: str, listed: list[tuple[str, Entry]]
) -> list[tuple[str, ObjectInfo]]:
    """The first of the listed entries, up to one of which more is known, or may have to be asked.

    ``prefix`` is that of the directory's keys.
    """
    found: list[tuple[str, ObjectInfo]] = []
    if tree.absences.told_in(directory.number):
        return found  # the kernel may have to forget that a name is absent
    known, remembered = directory.children, tree.metadata
    has_answers = bool(remembered)
    if not has_answers and known.keys().isdisjoint(name for name, _entry in listed):
        keys = [entry.key for _name, entry in listed if isinstance(entry, ObjectInfo)]
        if keys == [prefix + name for name, _entry in listed]:
            return cast(list[tuple[str, ObjectInfo]], listed)
    for name, entry in listed:
        if (
            name in known
            or not isinstance(entry, ObjectInfo)
            or entry.key != prefix + name
            or (has_answers and remembered.complete(entry).metadata is not None)
        ):
            break
        found.append((name, entry))
    return found
