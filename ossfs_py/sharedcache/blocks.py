"""The key of each block, and the form in which it lies in a node's memory. Pure.

A value is a head of 28 bytes and the block's bytes::

    magic "OSB1", kind of tag, number of items, two zero bytes, bytes of the block, tag of 16 bytes

What is larger than a node's largest item is cut: the first item has the head and the first piece,
the following ones, under the key with ``.1``, ``.2``… behind it, the rest. The tag covers the whole
block. It is made with a seed (or a key) that follows from endpoint, bucket, key, ETag, size, block
size and the block's place: the value of another block, or of another version, does not match.
"""

import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import xxhash

from ossfs_py.model import ObjectVersion

BLOCK_BYTES = 1024**2
"""Largest block. Mounts with blocks of 1 MiB and more share theirs, whatever their size is."""

_HEAD = struct.Struct("<4sBBHI16s")
HEAD_BYTES = _HEAD.size
_MAGIC = b"OSB1"
_CHECKSUM, _MAC = 0, 1
_MASK = 2**64 - 1
_FORMAT = b"\x01"
"""Goes into every key: another form of values gets other keys."""

MAX_ITEMS = 64
"""Most items of one block: 1 MiB in items of 16 KiB, less than memcached can be set to."""
ITEM_OVERHEAD_BYTES = 512
"""What memcached keeps beside a value: item header, key, CAS and the end of a line are under 150
bytes; a chunked item has 48 more for each 512 KiB."""


class ValueDamagedError(Exception):
    """A value that is not what was stored for this block; the text says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """The understood head of a value."""

    kind: int
    items: int
    size: int
    tag: bytes


class BlockNames:
    """Keys and tags of the blocks of one version.

    With a secret both are worked out with it: who has another one, or none, has other keys, and
    can neither plant a block nor tell which object a key belongs to.
    """

    __slots__ = ("_identity", "_name", "_secret", "_seed", "block_bytes", "version")

    def __init__(
        self,
        place: str,
        bucket: str,
        version: ObjectVersion,
        block_bytes: int,
        secret: bytes | None = None,
    ) -> None:
        """``place``: the store's, as :attr:`~ossfs_py.store.base.ObjectStore.place` says.
        ``secret``: at most 64 bytes.
        """
        self.version = version
        self.block_bytes = block_bytes
        self._secret = secret
        digest = blake2b(_FORMAT, digest_size=24, key=secret or b"")
        for text in (place, bucket, version.key, version.etag):
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(struct.pack("<I", len(raw)) + raw)
        digest.update(struct.pack("<QI", version.size, block_bytes))
        self._identity = digest.digest()
        self._seed = int.from_bytes(self._identity[:8], "little")
        self._name = b"ossfs:" + self._identity[:20].hex().encode()

    @property
    def count(self) -> int:
        """Blocks of the version."""
        return -(-self.version.size // self.block_bytes)

    def size(self, index: int) -> int:
        """Bytes of one block."""
        return min(self.block_bytes, self.version.size - index * self.block_bytes)

    def whole_blocks(self, start: int, end: int) -> range:
        """The blocks that lie completely in ``[start, end)`` of the object."""
        first = -(-start // self.block_bytes)
        last = self.count if end >= self.version.size else end // self.block_bytes
        return range(first, max(first, last))

    def runs(self, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """The spans of blocks, neighbours together."""
        found: list[tuple[int, int]] = []
        for index in sorted(blocks):
            start = index * self.block_bytes
            end = start + self.size(index)
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def key(self, index: int, item: int = 0) -> bytes:
        """The key of a block, or of a further item of it: at most 70 printable characters."""
        return b"%b-%x.%d" % (self._name, index, item) if item else b"%b-%x" % (self._name, index)

    def stripe(self, index: int, stripe_bytes: int) -> bytes:
        """The key by which the node of a block is chosen."""
        return b"%b/%x" % (self._name, index * self.block_bytes // stripe_bytes)

    def head(self, index: int, view: memoryview, items: int) -> bytes:
        """The head of a block's value."""
        kind = _CHECKSUM if self._secret is None else _MAC
        return _HEAD.pack(_MAGIC, kind, items, 0, len(view), self._tag(index, view))

    def understood(self, raw: bytes | memoryview, index: int) -> Head:
        """The head that ``raw`` is for this block.

        Raises:
            ValueDamagedError: it is none.
        """
        magic, kind, items, zero, size, tag = _HEAD.unpack(raw)
        if magic != _MAGIC or zero or not 0 < items <= MAX_ITEMS:
            raise ValueDamagedError("foreign bytes")
        if kind != (_CHECKSUM if self._secret is None else _MAC):
            raise ValueDamagedError("sealed in another way")
        if size != self.size(index):
            raise ValueDamagedError("another size")
        return Head(kind, items, size, tag)

    def check(self, head: Head, index: int, view: memoryview) -> None:
        """Whether ``view`` is the block that ``head`` was made for.

        Raises:
            ValueDamagedError: it is not.
        """
        if not hmac.compare_digest(head.tag, self._tag(index, view)):
            raise ValueDamagedError("its bytes do not match their seal")

    def _tag(self, index: int, view: memoryview) -> bytes:
        if self._secret is None:
            return xxhash.xxh3_128_digest(view, seed=(self._seed + index) & _MASK)
        # A key for each block says which one it is. Of what hashlib has, HMAC-SHA256 was the
        # fastest (0.58 CPU-s/GiB with a processor's SHA instructions; keyed blake2b 1.04).
        key = blake2b(
            self._identity + struct.pack("<Q", index), digest_size=32, key=self._secret
        ).digest()
        return hmac.digest(key, view, "sha256")[:16]


def pieces(size: int, item_bytes: int) -> list[tuple[int, int]]:
    """How a block of ``size`` bytes is cut where no item may exceed ``item_bytes``: about equal
    pieces ``[start, end)``; the first one leaves room for the head. Empty if it takes too many.
    """
    room = item_bytes - ITEM_OVERHEAD_BYTES - HEAD_BYTES
    count = -(-size // room) if room > 0 else MAX_ITEMS + 1
    if count > MAX_ITEMS:
        return []
    each = -(-size // count)
    return [(start, min(start + each, size)) for start in range(0, size, each)]
