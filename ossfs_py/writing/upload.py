"""One multipart upload whose parts are sent in parallel while the program goes on writing."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import outcome
import trio

from ossfs_py.errors import ObjectMissingError, StoreError, StoreUnavailableError
from ossfs_py.model import (
    Body,
    ByteRange,
    CommitRequest,
    Condition,
    MultipartUpload,
    ObjectVersion,
    Part,
)
from ossfs_py.writing.context import WriteContext

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    number: int
    send: Callable[[MultipartUpload], Part]
    done: Callable[[], None]
    wanted: bool = True
    is_sent: bool = False
    """Whether its bytes come from here; a copy is made at the store."""
    began: float = 0.0
    beside: int = 0
    """How many were in flight then, itself included."""


def _ignore() -> None:
    """A part whose bytes need no release."""


class PartsUpload:
    """Parts by number, sent by the network workers, at most ``parts_in_flight`` at a time.

    ``hidden`` says that the key is one of the mount's hidden keys, which the journal has to record.
    The upload begins at the store with the first part, so that a file that never fills one costs no
    multipart request. A part may be sent again under its number until :meth:`complete`. Two
    requests for one number never run at once, so the last submitted one counts. A failed part stays
    failed until it is submitted again. All methods belong to the trio thread.
    """

    def __init__(
        self, context: WriteContext, request: CommitRequest, *, hidden: bool = False
    ) -> None:
        self.request = request
        """Key, metadata and condition the upload began with."""
        self.hidden = hidden
        """Whether the object will be a hidden one of this mount."""
        self._store = context.store
        self._network = context.network
        self._journal = context.journal
        self._tidying = context.tidying
        self._context = context
        self._upload: MultipartUpload | None = None
        self._starting = False
        self._version: ObjectVersion | None = None
        self._over = False
        self._abandoned = False
        self._kept = False
        self._unanswered = False
        """A completion was given up, and may have been carried out."""
        self._queue: deque[_Job] = deque()
        self._in_flight: dict[int, _Job] = {}
        self._accepted: dict[int, Part] = {}
        self._failed: dict[int, Exception] = {}
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """Whether any part is queued or in flight."""
        return bool(self._queue or self._in_flight or self._starting)

    @property
    def made(self) -> ObjectVersion | None:
        """The object, once there is one; nothing can be sent any more."""
        return self._version

    @property
    def gone(self) -> bool:
        """Whether the store has dropped the upload: its parts are lost."""
        return any(isinstance(exc, ObjectMissingError) for exc in self._failed.values())

    @property
    def failed_numbers(self) -> list[int]:
        """Parts that have to be submitted again."""
        return sorted(self._failed)

    def failure(self) -> Exception | None:
        """Why a part failed, if one did."""
        return next(iter(self._failed.values()), None)

    def has(self, number: int) -> bool:
        """Whether the part is accepted, queued or in flight with its latest bytes."""
        return number in self._accepted or self._pending(number) is not None

    def accepted(self, number: int) -> bool:
        """Whether the store has the part's latest bytes."""
        return number in self._accepted

    def submit(self, number: int, body: Body, done: Callable[[], None] = _ignore) -> None:
        """Send ``body`` as part ``number``; ``done`` is called when its bytes are free again.

        ``done`` runs on the trio thread exactly once, even if the part fails, and must not raise.
        Until then the caller keeps the bytes in place.
        """

        def send(upload: MultipartUpload) -> Part:
            return self._store.upload_part(upload, number, body)

        self._enqueue(_Job(number, send, done, is_sent=True))

    def submit_copy(self, number: int, source: ObjectVersion, span: ByteRange) -> None:
        """Copy ``span`` of another object as part ``number``, on the server."""
        self._enqueue(
            _Job(
                number,
                lambda upload: self._store.copy_part(upload, number, source, span),
                _ignore,
            )
        )

    def withdraw(self, number: int) -> None:
        """The part's bytes changed, or do not belong to the file any more: do not use it."""
        self._accepted.pop(number, None)
        self._failed.pop(number, None)
        job = self._in_flight.get(number)
        if job is not None:
            job.wanted = False
        for queued in [job for job in self._queue if job.number == number]:
            self._queue.remove(queued)
            queued.done()

    def withdraw_from(self, number: int) -> None:
        """Withdraw ``number`` and every later part."""
        known = {*self._accepted, *self._failed, *self._in_flight}
        known.update(job.number for job in self._queue)
        for each in known:
            if each >= number:
                self.withdraw(each)

    async def changed(self) -> None:
        """Wait until a part settles; returns at once if nothing is in flight."""
        if self.busy:
            await self._lot.park()

    async def settled(self) -> None:
        """Wait until nothing is queued or in flight. Check :meth:`failure` after that.

        If this is cancelled, the parts go on.
        """
        while self.busy:
            await self._lot.park()

    async def complete(self, count: int, condition: Condition) -> ObjectVersion:
        """Turn parts 1 to ``count`` into the object; later calls return the same result.

        Cannot be cancelled half way, as the answer decides the file's base. The store's retry
        budget limits the wait.

        Raises:
            ConditionFailedError: nothing was written; the upload still exists.
            StoreError: the error of ``failure``, or the store refused.
        """
        if self._version is not None:
            return self._version
        failure = self.failure()
        if failure is not None:
            raise failure
        if self._upload is None:
            raise RuntimeError("no part was ever sent")
        parts = [self._accepted[number] for number in range(1, count + 1)]
        condition = replace(condition, repeated=condition.repeated or self._unanswered)
        with trio.CancelScope(shield=True):
            try:
                version = await self._network.run(self._complete, self._upload, parts, condition)
            except ObjectMissingError as exc:
                self._failed[0] = exc
                raise
            except StoreUnavailableError:
                self._unanswered = True
                raise
        self._version = version
        return version

    def abandon(self) -> None:
        """Give the upload up: queued parts are dropped, and the upload is aborted when the last
        part in flight has settled. An upload that cannot be aborted stays in the journal for the
        next mount.
        """
        if self._version is not None or self._abandoned or self._kept:
            return
        self._abandoned = True
        self._tidying.begin()
        self._drop_queue()
        self._abort_when_idle()

    def snapshot(self) -> tuple[MultipartUpload, list[Part]] | None:
        """The upload and its accepted parts so far; None if nothing was begun."""
        if self._upload is None:
            return None
        return self._upload, [self._accepted[number] for number in sorted(self._accepted)]

    def keep(self) -> None:
        """Leave the upload to a record of unsaved data: it is neither continued nor aborted."""
        self._kept = True
        self._drop_queue()

    # -- inside ------------------------------------------------------------------------------

    def _pending(self, number: int) -> _Job | None:
        job = self._in_flight.get(number)
        if job is not None and job.wanted:
            return job
        return next((job for job in self._queue if job.number == number), None)

    def _enqueue(self, job: _Job) -> None:
        if self._version is not None or self._abandoned or self._kept:
            raise RuntimeError("the upload is over")
        self.withdraw(job.number)
        self._queue.append(job)
        self._pump()

    def _pump(self) -> None:
        if self._upload is None:
            if self._queue and not self._starting:
                self._starting = True
                if not self._hand_out(self._start, self._started):
                    self._starting = False
                    self._start_failed(_shutting_down(self.request.key))
            return
        upload = self._upload
        for job in list(self._queue):
            if len(self._in_flight) >= self._context.parts_in_flight:
                return
            if job.number not in self._in_flight:
                self._queue.remove(job)
                self._in_flight[job.number] = job
                job.began, job.beside = trio.current_time(), len(self._in_flight)
                done = partial(self._sent, job)
                if not self._hand_out(partial(job.send, upload), done):
                    del self._in_flight[job.number]
                    self._failed[job.number] = _shutting_down(upload.key)
                    job.done()

    def _start(self) -> MultipartUpload:
        upload = self._store.start_multipart(self.request)
        try:
            if self.hidden:
                self._journal.record_scratch(upload.key)
            self._journal.record_upload(upload)
        except OSError:
            # An upload that nobody would find again must not get parts that cost money for ever.
            self._store.abort(upload)
            raise
        return upload

    def _started(self, result: outcome.Outcome[MultipartUpload]) -> None:
        self._starting = False
        match result:
            case outcome.Value(value):
                self._upload = value
                if self._kept:
                    # It began too late to be useful: the record could not name it.
                    self._kept = False
                    self.abandon()
                elif self._abandoned:
                    self._abort_when_idle()
                else:
                    self._pump()
            case outcome.Error(error):
                self._start_failed(error)
                if self._abandoned:
                    self._abort_when_idle()
        self._lot.unpark_all()

    def _start_failed(self, error: BaseException) -> None:
        queue, self._queue = self._queue, deque()
        for job in queue:
            self._failed[job.number] = _as_exception(error)
            job.done()

    def _sent(self, job: _Job, result: outcome.Outcome[Part]) -> None:
        if job.is_sent and isinstance(result, outcome.Value):
            now, beside = trio.current_time(), (job.beside + len(self._in_flight)) / 2
            self._context.pace.took(result.value.size, now - job.began, beside, now)
        del self._in_flight[job.number]
        if job.wanted:
            match result:
                case outcome.Value(value):
                    self._accepted[job.number] = value
                case outcome.Error(error):
                    self._failed[job.number] = _as_exception(error)
        job.done()
        if self._abandoned:
            self._abort_when_idle()
        elif not self._kept:
            self._pump()
        self._lot.unpark_all()

    def _drop_queue(self) -> None:
        queue, self._queue = self._queue, deque()
        for job in queue:
            job.done()
        self._lot.unpark_all()

    def _hand_out(
        self,
        fn: Callable[[], T],
        done: Callable[[outcome.Outcome[T]], None],
        *,
        urgent: bool = True,
    ) -> bool:
        """Run a call on a thread; False once the mount has closed its threads."""
        try:
            self._network.submit(fn, done, urgent=urgent)
        except RuntimeError:
            return False
        return True

    def _abort_when_idle(self) -> None:
        # An abort while a part is in flight can leave that part behind at the store.
        if self._over or self._in_flight or self._starting:
            return
        self._over = True
        if self._upload is None or not self._hand_out(
            partial(self._abort, self._upload), self._aborted, urgent=False
        ):
            self._tidying.end()

    def _aborted(self, _result: outcome.Outcome[None]) -> None:
        self._tidying.end()

    def _complete(
        self, upload: MultipartUpload, parts: Sequence[Part], condition: Condition
    ) -> ObjectVersion:
        version = self._store.complete(upload, parts, replace(self.request, condition=condition))
        self._forget(upload)
        return version

    def _abort(self, upload: MultipartUpload) -> None:
        try:
            self._store.abort(upload)
        except StoreError as exc:
            log.warning("an upload of %r stays for the next mount to abort: %s", upload.key, exc)
            return
        self._forget(upload)
        if self.hidden:
            self._journal.forget_scratch(upload.key)

    def _forget(self, upload: MultipartUpload) -> None:
        try:
            self._journal.forget_upload(upload)
        except OSError as exc:
            # Harmless: the next mount aborts an id that no longer exists.
            log.warning("the journal of uploads could not be updated: %s", exc)


def _shutting_down(key: str) -> StoreUnavailableError:
    return StoreUnavailableError("the mount is shutting down", operation="UploadPart", key=key)


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    raise error
