"""The journal's record of one dirty file. Pure codec, no I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from ossfs_py.errors import OssfsError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import (
    NO_METADATA,
    ByteRange,
    CommitRequest,
    MultipartUpload,
    ObjectVersion,
    Part,
)

_FORMAT = 1


class RecordDamagedError(OssfsError):
    """A journal record cannot be decoded."""


@dataclass(frozen=True, slots=True)
class SentParts:
    """Bytes that are only in an upload that was neither finished nor aborted."""

    upload: MultipartUpload
    parts: tuple[Part, ...]
    """The parts that the store has accepted; the others are sent from the data file."""
    edges: tuple[int, ...]
    """The end of each part of the whole file, from part 1 on."""


@dataclass(frozen=True, slots=True)
class DirtyRecord:
    """One dirty file: where its bytes are, and the object that they will become.

    Bytes in ``dirty`` are in the data file, others below ``base_valid`` are those of ``base``, and
    the rest are zeros. Without a base, the whole data file counts. ``key`` is empty if the record
    was damaged.
    """

    ident: str
    key: str
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    content_type: str | None = None
    base: ObjectVersion | None = None
    base_valid: int = 0
    replaces: str | None = None
    """The ETag of the object under the key when the file was closed, if there was one."""
    size: int = 0
    dirty: ExtentSet = field(default_factory=ExtentSet)
    log: str | None = None
    """Name of the log that continues this record; None for a file that began as nothing."""
    sent: SentParts | None = None
    scratch: bool = False
    """Whether ``base`` is a hidden object of ours, to be deleted when it is no longer needed."""
    complete: bool = False
    """Whether its program had closed the file: it is whole, and a program relies on it."""
    reason: str = ""
    """Why the file is unsaved, for a person."""
    vanished: bool = False
    """Whether its bytes are gone: the record only reports them, and nothing can be uploaded."""
    owner: str = ""
    """The owner of the open file, if it outlives the daemon; "": the file is not open then."""
    unlinked: bool = False
    """Whether its name was removed: only its owner needs it."""
    order: int = field(default=0, compare=False)
    """Greater than that of every earlier record of the journal."""

    @classmethod
    def of(cls, ident: str, request: CommitRequest, *, complete: bool = False) -> "DirtyRecord":
        """A record of a file that will be committed as ``request`` says."""
        return cls(
            ident=ident,
            key=request.key,
            metadata=request.metadata,
            content_type=request.content_type,
            replaces=None if request.replaces is None else request.replaces.etag,
            complete=complete,
        )

    def replaced(self, **changes: Any) -> "DirtyRecord":
        """This record with some fields changed."""
        return replace(self, **changes)

    def to_json(self, order: int | None = None) -> str:
        """The text on disk; ``order`` replaces the record's own."""
        if self._is_new_small:
            return self._small_json(self.order if order is None else order)
        fields: dict[str, Any] = {
            "format": _FORMAT,
            "ident": self.ident,
            "key": self.key,
            "metadata": dict(self.metadata),
            "content_type": self.content_type,
            "base": self.base and [self.base.key, self.base.etag, self.base.size],
            "base_valid": self.base_valid,
            "replaces": self.replaces,
            "size": self.size,
            "dirty": [[span.start, span.end] for span in self.dirty],
            "log": self.log,
            "scratch": self.scratch,
            "complete": self.complete,
            "reason": self.reason,
            "vanished": self.vanished,
            "owner": self.owner,
            "unlinked": self.unlinked,
            "order": self.order if order is None else order,
        }
        if self.sent is not None:
            fields["sent"] = {
                "key": self.sent.upload.key,
                "upload_id": self.sent.upload.upload_id,
                "parts": [
                    [part.number, part.etag, part.size, part.checksum] for part in self.sent.parts
                ],
                "edges": self.sent.edges,
            }
        return json.dumps(fields)

    @property
    def _is_new_small(self) -> bool:
        """Whether it says little more than name and metadata."""
        return not (
            self.base or self.base_valid or self.size or self.dirty or self.log or self.sent
        ) and not (self.scratch or self.reason or self.vanished or self.unlinked)

    def _small_json(self, order: int) -> str:
        return _small_text(
            self.ident,
            self.key,
            self.metadata,
            self.content_type,
            self.replaces,
            self.owner,
            order,
            complete=self.complete,
        )

    @classmethod
    def from_json(cls, text: str) -> "DirtyRecord":
        """Read a record back.

        Raises:
            RecordDamagedError: the text is no record.
        """
        try:
            fields = json.loads(text)
            if fields["format"] != _FORMAT:
                raise RecordDamagedError(f"record format {fields['format']!r} is not known")
            base, sent = fields["base"], fields.get("sent")
            return cls(
                ident=str(fields["ident"]),
                key=str(fields["key"]),
                metadata={str(k): str(v) for k, v in fields["metadata"].items()},
                content_type=_text(fields["content_type"]),
                base=None
                if base is None
                else ObjectVersion(str(base[0]), str(base[1]), int(base[2])),
                base_valid=int(fields["base_valid"]),
                replaces=_text(fields.get("replaces")),
                size=int(fields["size"]),
                dirty=ExtentSet(ByteRange(int(s), int(e)) for s, e in fields["dirty"]),
                log=_text(fields["log"]),
                sent=None if sent is None else _sent_parts(sent),
                scratch=bool(fields["scratch"]),
                complete=bool(fields.get("complete")),
                reason=str(fields["reason"]),
                vanished=bool(fields.get("vanished")),
                owner=str(fields.get("owner", "")),
                unlinked=bool(fields.get("unlinked")),
                order=int(fields.get("order", 0)),
            )
        except _DAMAGE as exc:
            raise RecordDamagedError(f"the record is damaged ({type(exc).__name__})") from exc


@dataclass(slots=True)
class SmallRecord:
    """As :meth:`DirtyRecord.of`, for who only writes it down: several for each new small file."""

    ident: str
    request: CommitRequest
    complete: bool

    def to_json(self, order: int) -> str:
        """The text on disk."""
        request = self.request
        replaces = None if request.replaces is None else request.replaces.etag
        return _small_text(
            self.ident,
            request.key,
            request.metadata,
            request.content_type,
            replaces,
            "",
            order,
            complete=self.complete,
        )


def _small_text(
    ident: str,
    key: str,
    metadata: Mapping[str, str],
    content_type: str | None,
    replaces: str | None,
    owner: str,
    order: int,
    *,
    complete: bool,
) -> str:
    """The text of a record that says little more than name and metadata, by hand: the encoder takes
    three times as long.
    """
    described = ", ".join(
        [f"{_quoted(name)}: {_quoted(value)}" for name, value in metadata.items()]
    )
    return (
        f'{{"format": {_FORMAT}, "ident": {_quoted(ident)}, "key": {_quoted(key)},'
        f' "metadata": {{{described}}}, "content_type": {_quoted_or_null(content_type)},'
        f' "base": null, "base_valid": 0, "replaces": {_quoted_or_null(replaces)},'
        f' "size": 0, "dirty": [], "log": null, "scratch": false,'
        f' "complete": {_TRUTHS[complete]}, "reason": "", "vanished": false,'
        f' "owner": {_quoted(owner)}, "unlinked": false, "order": {order}}}'
    )


_TRUTHS = {True: "true", False: "false"}


def _quoted_or_null(text: str | None) -> str:
    return "null" if text is None else _quoted(text)


_DAMAGE = (LookupError, ValueError, OverflowError, TypeError, AttributeError, RecursionError)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _sent_parts(fields: Mapping[str, Any]) -> SentParts:
    return SentParts(
        MultipartUpload(str(fields["key"]), str(fields["upload_id"])),
        # Stores that were promised checksums need them again at completion.
        tuple(
            Part(int(n), str(etag), int(size), checksum and str(checksum))
            for n, etag, size, checksum in fields["parts"]
        ),
        tuple(int(edge) for edge in fields["edges"]),
    )
