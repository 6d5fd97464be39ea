"""A nearer address of the same objects: asked first for bytes, and never relied on."""

import logging
import threading
import time
from collections.abc import Callable

from cachetools import TTLCache

from ossfs_py.errors import EnvironmentProblemError, StoreError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.error_map import AnswerError
from ossfs_py.store.s3.ranges import RangedGet
from ossfs_py.store.s3.readpins import ReadPins
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.wire import WireClient
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

CONNECT_SECONDS = 1.0
STALL_SECONDS = 2.0
"""An address in the same data centre never takes this long; then the store itself is asked."""

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
"""Longest pause after a failure: pauses double each time, until it answers."""
_LACKING_SECONDS = 60.0
_MOST_LACKING = 10_000
"""Versions that it did not have, and that are not requested again soon; 100 bytes each."""
_NOT_THERE = (404, 412)


class ReadEndpoint:
    """Another endpoint of the same bucket, such as an accelerator, a gateway or a mirror.

    Only bytes come from it, and only those that it declares as the pinned version's, by ETag and
    range. If it gives any version's bytes (a gateway of rclone), its own HEAD verifies them. In all
    other cases the reader asks the store itself. Safe for concurrent use.
    """

    def __init__(
        self,
        url: str,
        wire: WireClient,
        metrics: Metrics,
        pins: ReadPins,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url`` is for messages. ``wire`` should have the timeouts of this module, and ``pins``
        should verify what comes by it.
        """
        self._url = url
        self._wire = wire
        self._pins = pins
        self._clock = clock
        self._requests = metrics.read_endpoint_requests
        self._bytes = metrics.read_endpoint_bytes
        self._lock = threading.Lock()
        self._lacking: TTLCache[ObjectVersion, None] = TTLCache(
            _MOST_LACKING, _LACKING_SECONDS, timer=clock
        )
        self._pause_seconds = 0.0
        """0 while it answers."""
        self._failed_at = self._ask_again_at = float("-inf")

    def give(self, get: RangedGet) -> None:
        """Fill as much of the buffer as it can; at most one request for bytes. Fails silently: the
        missing bytes then come from the store.
        """
        version = get.version
        if not version.has_etag or not self._may_ask(version):
            return
        asked_at, is_verified = self._clock(), False
        try:
            get.once(self._wire, Attempt(), believe=False)
            # Not beside the request: an object that it lacks would tell nothing.
            self._pins.ask_beside(version)
            self._pins.vouch(version)
            is_verified = True
        except VersionChangedError:
            self._lacks(version)
        except AnswerError as error:
            if error.status in _NOT_THERE:
                self._lacks(version)
            else:
                self._failed(asked_at, str(error))
        except (NoAnswerError, StoreError, EnvironmentProblemError) as exc:
            self._failed(asked_at, str(exc))
        else:
            self._requests.labels("given").inc()
            self._answers()
        finally:
            # The beginning of a body that broke off is kept only if nobody has to verify it.
            if not is_verified and not self._pins.is_trusted(version):
                get.drop()
            self._bytes.inc(get.got)

    def close(self) -> None:
        """Close its connections; requests in flight fail."""
        self._pins.close()
        self._wire.close()

    def _may_ask(self, version: ObjectVersion) -> bool:
        with self._lock:
            if version in self._lacking:
                return False
            if not self._pause_seconds:
                return True
            now = self._clock()
            if now < self._ask_again_at:
                return False
            # One request tries for all.
            self._ask_again_at = now + self._pause_seconds
            return True

    def _lacks(self, version: ObjectVersion) -> None:
        self._requests.labels("lacking").inc()
        with self._lock:
            self._lacking[version] = None
        self._answers()

    def _answers(self) -> None:
        if not self._pause_seconds:
            return
        with self._lock:
            self._pause_seconds = 0.0
        log.info("the read endpoint %s answers again", self._url)

    def _failed(self, asked_at: float, why: str) -> None:
        self._requests.labels("failed").inc()
        with self._lock:
            if asked_at < self._failed_at:
                return  # it was in flight when another one failed
            first = not self._pause_seconds
            doubled = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            self._pause_seconds = doubled or _FIRST_PAUSE_SECONDS
            self._failed_at = self._clock()
            self._ask_again_at = self._failed_at + self._pause_seconds
        if first:
            log.warning("reads go to the store: the read endpoint %s fails: %s", self._url, why)
