"""A store of any number of keys that exist nowhere: pages are made as they are asked for."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import overload

from ossfs_py.errors import ObjectMissingError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from tests.support.fake_store import NS_PER_SECOND, FakeStore

OBJECT_BYTES = 50_000
_AFTER_ALL = "\U0010ffff"
"""Sorts behind every character of the keys."""


class TreeKeys(Sequence[str]):
    """The keys of a tree, in order: ``fan_outs`` says how many entries each level has.

    ``(10, 100)`` gives ``n000000000/n000000000`` to ten directories of a hundred files. Numbers go
    up in ``step``: with 1 the last key of a page tells where the following pages end.
    """

    def __init__(self, *fan_outs: int, step: int = 7) -> None:
        self._fan_outs = fan_outs
        self._step = step
        self._length = math.prod(fan_outs)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        names = []
        for size in reversed(self._fan_outs):
            place, number = divmod(place, size)
            names.append(f"n{number * self._step:09}")
        return "/".join(reversed(names))


class EndlessStore(FakeStore):
    """Lists the given keys, in order; objects of equal size, each with an ETag of its own."""

    def __init__(self, keys: Sequence[str], *, page_size: int = 1000) -> None:
        super().__init__(page_size=page_size)
        self._keys = keys

    def head(self, key: str) -> ObjectInfo:
        self._enter("head", key)
        place = bisect_left(self._keys, key)
        if place == len(self._keys) or self._keys[place] != key:
            raise ObjectMissingError("no such key", key=key)
        return self._info(place, key)

    def list_page(self, query: ListQuery) -> ListPage:
        prefix, delimiter = query.prefix, query.delimiter
        self._enter("list_page", prefix)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for shown, info in self._entries(prefix, delimiter, query.token or query.start_after):
            if len(objects) + len(prefixes) == min(query.max_keys, self._page_size):
                return ListPage(tuple(objects), tuple(prefixes), last)
            last = shown
            if info is None:
                prefixes.append(shown)
            else:
                objects.append(info)
        return ListPage(tuple(objects), tuple(prefixes), None)

    def _entries(
        self, prefix: str, delimiter: str, after: str | None
    ) -> Iterator[tuple[str, ObjectInfo | None]]:
        """Keys, and common prefixes with None, from behind ``after`` on."""
        if after is not None and delimiter and after.endswith(delimiter):
            after += _AFTER_ALL  # a common prefix: everything below it was shown
        begin = bisect_left(self._keys, prefix)
        place = begin if after is None else max(begin, bisect_right(self._keys, after))
        while place < len(self._keys):
            key = self._keys[place]
            if not key.startswith(prefix):
                return
            folded = key.find(delimiter, len(prefix)) if delimiter else -1
            if folded < 0:
                yield key, self._info(place, key)
                place += 1
            else:
                common = key[: folded + len(delimiter)]
                yield common, None
                place = bisect_right(self._keys, common + _AFTER_ALL, place)

    @staticmethod
    def _info(place: int, key: str) -> ObjectInfo:
        return ObjectInfo(
            key, OBJECT_BYTES, f"{place:032x}", (1_700_000_000 + place) * NS_PER_SECOND
        )
