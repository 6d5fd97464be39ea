"""Copying a file from an object that has its bytes already, instead of sending it (``--dedup``).

An ETag is trusted if it follows from the file's own bytes: as their MD5 or, for an object in parts,
as the MD5 of its parts' MD5s. Other ETags (with SSE-KMS and SSE-C, or on stores that make them up)
equal neither, and the file is sent. The copy is pinned to that ETag.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ossfs_py.errors import ConditionFailedError, StoreError, StoreUnavailableError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.content import Content
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.parts import PartLimits, PartSchedule, plan_commit
from ossfs_py.writing.upload import PartsUpload

log = logging.getLogger(__name__)

Cut = tuple[ByteRange, ...]
"""The parts of an object; empty: it was sent whole."""

_STEP_BYTES = 4 * 1024**2
_MD5 = re.compile(r"[0-9a-f]{32}(?:-([1-9][0-9]{0,4}))?", re.ASCII)


class EtagDigest:
    """Computes the ETag of bytes that were stored with this ``cut``, in their order."""

    def __init__(self, cut: Cut) -> None:
        self._ends = [span.end for span in reversed(cut)]
        self._count = len(cut)
        self._position = 0
        self._part = hashlib.md5(usedforsecurity=False)
        self._parts = hashlib.md5(usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while self._ends and self._position + len(view) >= self._ends[-1]:
            rest = self._ends.pop() - self._position
            self._part.update(view[:rest])
            self._parts.update(self._part.digest())
            self._part = hashlib.md5(usedforsecurity=False)
            self._position += rest
            view = view[rest:]
        self._part.update(view)
        self._position += len(view)

    def etag(self) -> str:
        """The ETag of all bytes; call after all were taken."""
        if not self._count:
            return self._part.hexdigest()
        return f"{self._parts.hexdigest()}-{self._count}"


def possible_cuts(etag: str, size: int, limits: PartLimits) -> list[Cut]:
    """Possible cuts of an object with this ETag, if its bytes can be recognized by the ETag.

    Objects in parts are recognized if they were cut as by this program, boto3 and the AWS CLI (8
    MiB each), or as this program cuts copies.
    """
    found = _MD5.fullmatch(etag)
    if found is None or not size:
        return []
    if found[1] is None:
        return [()]
    count = int(found[1])
    cuts: list[Cut] = []
    schedule = PartSchedule(limits)
    if size <= schedule.capacity and schedule.number_at(size - 1) == count:
        spans = [schedule.span(number) for number in range(1, count + 1)]
        cuts.append((*spans[:-1], ByteRange(spans[-1].start, size)))
    copied = _copied_cut(size, limits)
    if len(copied) == count and copied not in cuts:
        cuts.append(copied)
    return cuts


def _copied_cut(size: int, limits: PartLimits) -> Cut:
    plan = plan_commit(size, size, ExtentSet(), part_copy=True, limits=limits)
    return tuple(part.span for part in plan)


@dataclass(frozen=True, slots=True)
class _Twin:
    version: ObjectVersion
    cut: Cut


async def copied_from_twin(
    context: WriteContext,
    content: Content,
    twins_of: Callable[[int], Sequence[ObjectVersion]],
    request: CommitRequest,
    condition: Condition,
) -> ObjectVersion | None:
    """Make the object by copying another one with the same bytes; None if it has to be sent.

    It has the metadata of ``request``; only the bytes of the other object are used.

    Raises:
        ConditionFailedError: nothing was written.
        StoreUnavailableError: it is not known whether the object was made.
    """
    size = content.size
    if size < context.limits.twin_bytes or not content.all_here:
        return None
    twins = twins_of(size)
    if not twins:
        return None
    try:
        twin = await _twin_among(context, content, twins)
    except (StoreError, OSError) as exc:
        log.info("%r is not compared with other objects: %s", request.key, exc)
        return None
    if twin is None or not (await context.network.run(context.store.capabilities)).part_copy:
        return None
    # Copied in the same parts, the object gets the same ETag, and can serve as a source in turn.
    cut = twin.cut or _copied_cut(size, context.parts)
    upload = PartsUpload(context, request)
    try:
        for number, span in enumerate(cut, 1):
            upload.submit_copy(number, twin.version, span)
        await upload.settled()
        failure = upload.failure()
        if failure is None:
            version = await upload.complete(len(cut), condition)
            log.info("%r was copied from %r instead of sent", request.key, twin.version.key)
            return version
    except (ConditionFailedError, StoreUnavailableError):
        raise
    except StoreError as exc:
        failure = exc
    finally:
        upload.abandon()
    log.info("%r is sent, as it cannot be copied: %s", request.key, failure)
    return None


async def _twin_among(
    context: WriteContext, content: Content, twins: Sequence[ObjectVersion]
) -> _Twin | None:
    """The first of ``twins`` that has the content's bytes.

    Raises:
        StoreError, OSError: the bytes cannot be read.
    """
    size, limits = content.size, context.parts
    digests: dict[Cut, EtagDigest] = {}
    for twin in twins:
        for cut in possible_cuts(twin.etag, size, limits):
            digests.setdefault(cut, EtagDigest(cut))
    if not digests:
        return None
    position = 0
    while position < size:
        piece = await content.piece(position, min(position + _STEP_BYTES, size))
        if not piece:
            return None
        data = bytes(piece)  # a view is valid only until the next checkpoint
        await context.local.run(partial(_update, list(digests.values()), data))
        position += len(data)
    cuts = {digest.etag(): cut for cut, digest in digests.items()}
    for twin in twins:
        if twin.etag in cuts:
            return _Twin(twin, cuts[twin.etag])
    return None


def _update(digests: Sequence[EtagDigest], data: bytes) -> None:
    for digest in digests:
        digest.update(data)
