"""Reads that must not change under their reader: whether If-Match of a GET is obeyed, and a check
where it is not.
"""

import logging
import threading

from ossfs_py.errors import EnvironmentProblemError, StoreError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.store.options import Choice
from ossfs_py.store.s3.heads import etag_told
from ossfs_py.store.s3.probing import Prober
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.wire import Request, WireClient

log = logging.getLogger(__name__)

_MOST_TRIES = 3
"""A store whose answer to the probe says nothing so often is not asked again: reads are checked."""


class ReadPins:
    """Vouches for bytes that were read. Blocking; safe for concurrent use.

    rclone's server names the ETag that it has looked up and then sends what is in the file by then,
    so the ETag of the answer proves nothing. A HEAD afterwards does: it has the pinned ETag only if
    nothing was written before the bytes were sent.

    Whether the store is such a one is found out beside the first read, with a second GET of the
    same object that asks for another version. It takes no time of the reader's, and one request a
    day for each endpoint.
    """

    def __init__(
        self,
        wire: WireClient,
        prober: Prober,
        traits: KnownTraits,
        choice: Choice,
    ) -> None:
        self._wire = wire
        self._prober = prober
        self._traits = traits
        self._choice = choice
        self._tries = 0
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None
        """Set when the probe that is under way has ended."""

    def ask_beside(self, version: ObjectVersion) -> None:
        """Begin to find out what is not known yet, in a thread of its own."""
        if self._is_trusted(version) or self._choice != "auto":
            return
        with self._lock:
            known = self._traits.now.reads is not None or self._tries >= _MOST_TRIES
            if known or self._asking is not None:
                return
            self._tries += 1
            asking = self._asking = threading.Event()
        threading.Thread(
            target=self._ask, args=(version, asking), name="store-probe", daemon=True
        ).start()

    def vouch(self, version: ObjectVersion) -> None:
        """Return if what was just read is ``version``.

        Raises:
            VersionChangedError: the key holds another version now.
            ObjectMissingError, StoreError: it cannot be said.
        """
        if self._is_trusted(version):
            return
        asking = self._asking
        if asking is not None:
            asking.wait()
            if self._is_trusted(version):
                return
        now = self._wire.call(Request("HeadObject", "HEAD", version.key))
        if etag_told(now.headers) != version.etag:
            raise VersionChangedError(
                "the object changed at the store", operation="GetObject", key=version.key
            )

    def _is_trusted(self, version: ObjectVersion) -> bool:
        # A version that is named by its id never changes. One without an ETag cannot be told.
        if version.version_id is not None or not version.has_etag:
            return True
        return self._choice == "on" or (
            self._choice == "auto" and self._traits.now.reads == "pinned"
        )

    def _ask(self, version: ObjectVersion, asking: threading.Event) -> None:
        try:
            found = self._prober.reads(version)
            if found is not None:
                self._traits.learn(reads=found)
            if found == "unpinned":
                log.warning(
                    "this store gives bytes of another version than the one asked for: each "
                    "request for bytes is followed by a HEAD"
                )
        except (StoreError, EnvironmentProblemError) as exc:
            log.info("whether reads can be pinned is not known yet: %s", exc)
        finally:
            with self._lock:
                self._asking = None
            asking.set()
