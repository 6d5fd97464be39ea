"""Trees of objects that get other keys: how one is copied, and in which order all are copied and
deleted.

Two that know nothing of each other move trees: the rename of a directory, and the next mount where
a daemon died in the middle of one.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from ossfs_py.errors import ObjectMissingError, StoreUnavailableError, VersionChangedError
from ossfs_py.model import CommitRequest, ListPage, ListQuery, ObjectInfo, ObjectVersion
from ossfs_py.store.base import ObjectStore


def pages_below(
    list_page: Callable[[ListQuery], ListPage], prefix: str
) -> Iterator[Sequence[ObjectInfo]]:
    """All objects below a prefix, a page at a time, each requested when it is asked for.

    Raises:
        StoreError
    """
    token: str | None = None
    used: set[str | None] = set()
    while token not in used:
        used.add(token)
        page = list_page(ListQuery(prefix, delimiter="", token=token))
        yield page.objects
        token = page.next_token
        if token is None:
            return
    raise StoreUnavailableError(
        "the listing goes in circles", operation="ListObjectsV2", key=prefix
    )


def copy_object(
    store: ObjectStore, info: ObjectInfo, key: str, *, asks: bool = False
) -> tuple[ObjectVersion, ObjectVersion] | None:
    """Copy an object that a listing told of; returns what was copied and the copy, None if another
    client has deleted it meanwhile. Where another client has replaced it, the new one is copied.

    ``asks``: facts that a LIST lacks (encryption, a redirect) are requested first. Otherwise the
    store's defaults for copies apply.

    Raises:
        StoreError
    """
    source = info.version
    try:
        try:
            if key.endswith("/") and not info.size:
                # SeaweedFS answers a copy of a marker with success and makes nothing.
                marker = store.head(info.key)
                request = CommitRequest(
                    key, marker.metadata or {}, marker.content_type, like=marker
                )
                return source, store.put(request, b"")
            if asks:
                info = store.head(info.key)
            return source, store.copy(source, key, like=info)
        except VersionChangedError:
            info = store.head(info.key)
            return info.version, store.copy(info.version, key, like=info)
    except ObjectMissingError:
        return None


def from_the_top(objects: Iterable[ObjectInfo]) -> list[list[ObjectInfo]]:
    """In the order of copying: markers, those of one depth together, then files. SeaweedFS loses a
    marker, at times, that comes while it makes the directory by itself for something in it.
    """
    levels: dict[int, list[ObjectInfo]] = {}
    for info in objects:
        levels.setdefault(_depth(info.key), []).append(info)
    return [levels[depth] for depth in sorted(levels)]


def from_the_bottom(keys: Iterable[str]) -> list[list[str]]:
    """In the order of deleting: files, then markers from the deepest up. SeaweedFS keeps a marker,
    silently, whose directory still has children.
    """
    levels: dict[int, list[str]] = {}
    for key in keys:
        levels.setdefault(_depth(key), []).append(key)
    return [levels[depth] for depth in sorted(levels, reverse=True)]


def _depth(key: str) -> int:
    return key.count("/") if key.endswith("/") else sys.maxsize
