"""The traits of a store: found by probing, which costs a dozen requests, and kept for a day."""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from ossfs_py.store.base import Feature, Verdict

log = logging.getLogger(__name__)

Create = Literal["http", "oss", "ignored", "refused"]
"""The way to keep a PUT from overwriting: If-None-Match: *, x-oss-forbid-overwrite, or none."""
Replace = Literal["quoted", "bare", "ignored", "refused"]
"""The ETag format for If-Match of a PUT: with quotes, without (Ceph 16), or it does not work."""
USELESS = ("ignored", "refused")
Winners = Literal["one", "several"]
"""How many clients that create a key at the same moment get success (Swift: two)."""
Completions = Literal["checked", "ignored"]
"""Whether the store checks a condition at the end of a multipart upload."""
Copies = Literal["pinned", "unpinned", "unpinnable", "none"]
"""UploadPartCopy obeys x-amz-copy-source-if-match, ignores it (Ceph), refuses it, or is missing."""
PartSizes = Literal["equal", "free"]
"""All parts of an upload except the last must have one size (Cloudflare R2), or need not."""
Reads = Literal["pinned", "unpinned"]
"""GetObject obeys If-Match, or may send bytes of any present version (rclone, JuiceFS)."""
TagCounts = Literal["told", "untold", "none"]
"""A HEAD reports the number of tags of an object, or does not (LocalStack); or there are no tags.
"""
Markers = Literal["kept", "files"]
"""A key that ends with a slash is kept, or becomes a file without the slash (rclone)."""
Checksums = Literal["refused"]
"""Requests may not carry x-amz-checksum-* headers (Backblaze B2 and some gateways)."""
Removals = Literal["none"]
"""No request removes many objects at once."""

_DAY_SECONDS = 86_400.0
"""Servers are updated and reconfigured: no result is used for longer."""
_FORMAT = 2
"""Another one when the same answers are understood otherwise."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The known traits; None: not known yet."""

    create: Create | None = None
    replace: Replace | None = None
    winners: Winners | None = None
    completions: Completions | None = None
    copies: Copies | None = None
    checksums: Checksums | None = None
    removals: Removals | None = None
    part_sizes: PartSizes | None = None
    markers: Markers | None = None
    reads: Reads | None = None
    tag_counts: TagCounts | None = None


_VALUES = {
    "create": get_args(Create),
    "replace": get_args(Replace),
    "winners": get_args(Winners),
    "completions": get_args(Completions),
    "copies": get_args(Copies),
    "checksums": get_args(Checksums),
    "removals": get_args(Removals),
    "part_sizes": get_args(PartSizes),
    "markers": get_args(Markers),
    "reads": get_args(Reads),
    "tag_counts": get_args(TagCounts),
}


class KnownTraits:
    """The traits of one endpoint, shared by all of its users. Safe for concurrent use.

    ``directory`` keeps them, in one file for each endpoint. If it is None or cannot be used, they
    are kept until the process ends. Damaged and old files count as missing.
    """

    def __init__(
        self,
        endpoint: str,
        directory: Path | None,
        *,
        afresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``afresh``: use no kept results."""
        name = f"{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}.json"
        self._endpoint = endpoint
        self._file = None if directory is None else directory / name
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._is_unsaved = False
        self._traits = Traits() if afresh else self._load()

    @property
    def now(self) -> Traits:
        """The traits known now."""
        return self._traits

    def learn(self, **found: str) -> None:
        """Add results, by the field names of :class:`Traits`."""
        with self._lock:
            self._traits = replace(self._traits, **found)  # type: ignore[arg-type]
            self._save()

    def note(self, **found: str) -> None:
        """As :meth:`learn`, but writes nothing to disk before the next :meth:`learn`, or the end:
        for results of read-only mounts, which may have promised to write nothing.
        """
        with self._lock:
            self._traits = replace(self._traits, **found)  # type: ignore[arg-type]
            self._is_unsaved = True

    def close(self) -> None:
        """Write the noted results."""
        with self._lock:
            if self._is_unsaved:
                self._save()

    def _load(self) -> Traits:
        if self._file is None:
            return Traits()
        try:
            content = json.loads(self._file.read_text())
            since, kept = float(content["since"]), dict(content["traits"])
            is_ours = content["format"] == _FORMAT and content["endpoint"] == self._endpoint
        except (OSError, ValueError, KeyError, TypeError):
            return Traits()
        if not is_ours or not 0 <= self._clock() - since < _DAY_SECONDS:
            return Traits()
        self._since = since
        known = {name: value for name, value in kept.items() if value in _VALUES.get(name, ())}
        return Traits(**known)

    def _save(self) -> None:
        self._is_unsaved = False
        if self._file is None:
            return
        kept = {"format": _FORMAT, "endpoint": self._endpoint, "since": self._since}
        text = json.dumps({**kept, "traits": asdict(self._traits)})
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(0o700, exist_ok=True)
            temporary.write_text(text)
            temporary.replace(self._file)
        except OSError as exc:
            log.debug("what was found out about the store cannot be kept: %s", exc)


class _TraitRow(NamedTuple):
    """A feature that one trait decides."""

    name: str
    what: str
    trait: str
    works: str | None
    """The trait's value if the feature works; None: then there is nothing to report."""
    fails: str
    verdict: Verdict
    instead: str


_ROWS = (
    _TraitRow(
        "read pins",
        "a read is refused if the object is another version",
        trait="reads",
        works="pinned",
        fails="unpinned",
        verdict="ignored",
        instead="the object is checked after each request for bytes",
    ),
    _TraitRow(
        "tag counts",
        "a HEAD tells how many tags an object has",
        trait="tag_counts",
        works="told",
        fails="untold",
        verdict="ignored",
        instead="the tags are requested before an object is written anew",
    ),
    _TraitRow(
        "part sizes",
        "the parts of an upload may differ in size",
        trait="part_sizes",
        works="free",
        fails="equal",
        verdict="refused",
        instead="all parts have one size",
    ),
    _TraitRow(
        "directories",
        "an empty directory is kept as an object",
        trait="markers",
        works="kept",
        fails="files",
        verdict="refused",
        instead="empty directories are known to the mount that made them only",
    ),
    _TraitRow(
        "checksums",
        "uploads say their checksums",
        trait="checksums",
        works=None,
        fails="refused",
        verdict="refused",
        instead="uploads go without them",
    ),
    _TraitRow(
        "batch removal",
        "one request removes many objects",
        trait="removals",
        works=None,
        fails="none",
        verdict="refused",
        instead="objects are removed one by one",
    ),
)
_HEAD_FIRST = "the key is checked just before the write, which is not atomic"


def features_of(traits: Traits) -> Iterator[Feature]:
    """The known traits in words."""
    yield from _of_writes(traits)
    yield from _of_one_value(traits)


def _of_writes(traits: Traits) -> Iterator[Feature]:
    create, replaced, copies = traits.create, traits.replace, traits.copies
    yield Feature(
        "create-only",
        "a write is refused if the key exists",
        _verdict(create),
        _HEAD_FIRST if create in USELESS else "",
    )
    yield Feature(
        "replace-only",
        "a write is refused if the key holds another version",
        _verdict(replaced),
        "ETags are sent without quotes"
        if replaced == "bare"
        else _HEAD_FIRST
        if replaced in USELESS
        else "",
    )
    if create not in USELESS and traits.winners == "several":
        yield Feature(
            "one creator",
            "of several who create a key at the same moment one succeeds",
            "ignored",
            "files created with O_EXCL on two hosts at the same moment may replace one another",
        )
    if create not in USELESS:
        yield Feature(
            "at completion",
            "so is the end of a multipart upload",
            _verdict(traits.completions),
            _HEAD_FIRST if traits.completions == "ignored" else "",
        )
    yield Feature(
        "part copies",
        "the store copies parts of objects",
        "refused" if copies == "none" else _verdict(copies),
        "changed files are sent whole" if copies == "none" else "",
    )
    if copies not in (None, "none"):
        yield Feature(
            "copy pins",
            "a copy is refused if its source is another version",
            "works" if copies == "pinned" else "ignored" if copies == "unpinned" else "refused",
            "" if copies == "pinned" else "the source is checked after each part",
        )


def _of_one_value(traits: Traits) -> Iterator[Feature]:
    for row in _ROWS:
        value = getattr(traits, row.trait)
        if value is not None and value == row.works:
            yield Feature(row.name, row.what, "works", "")
        elif value == row.fails:
            yield Feature(row.name, row.what, row.verdict, row.instead)


def _verdict(known: str | None) -> Verdict:
    if known is None:
        return "unknown"
    return "ignored" if known == "ignored" else "refused" if known == "refused" else "works"
