"""Reads that must not change under their reader: whether If-Match of a GET is obeyed, and a check
where it is not.
"""

import logging
import threading
from dataclasses import dataclass, field

from ossfs_py.errors import EnvironmentProblemError, StoreError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.store.options import Choice
from ossfs_py.store.s3.heads import etag_told
from ossfs_py.store.s3.probing import Prober
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.wire import Request, WireClient, patience_seconds

log = logging.getLogger(__name__)

_MOST_TRIES = 3
"""A store whose answer to the probe says nothing so often is not asked again: reads are checked."""


@dataclass(slots=True)
class _LookAfter:
    """A HEAD that several readers wait for."""

    before: "_LookAfter | None"
    """One that is under way, which began too early to vouch for what has been read since."""
    ended: threading.Event = field(default_factory=threading.Event)
    etag: str = ""
    error: Exception | None = None


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
        self._looks: dict[ObjectVersion, _LookAfter] = {}
        """Those under way, and those that begin when these have ended:"""
        self._next_looks: dict[ObjectVersion, _LookAfter] = {}
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
        if self._look(version) != version.etag:
            raise VersionChangedError(
                "the object changed at the store", operation="GetObject", key=version.key
            )

    def _look(self, version: ObjectVersion) -> str:
        """The ETag that the key has now. Whoever waits for the same look shares it: rclone reads
        the whole object to answer, and 16 looks at once would take as long as 16 objects.
        """
        with self._lock:
            look = self._next_looks.get(version)
            is_mine = look is None
            if look is None:
                look = self._next_looks[version] = _LookAfter(self._looks.get(version))
        if is_mine:
            if look.before is not None:
                look.before.ended.wait()
                look.before = None
            with self._lock:
                # Who comes from now on may have read after the answer.
                self._looks[version] = self._next_looks.pop(version)
            try:
                asking = Request(
                    "HeadObject",
                    "HEAD",
                    version.key,
                    patience_seconds=patience_seconds(version.size),
                )
                look.etag = etag_told(self._wire.call(asking).headers)
            except Exception as exc:
                look.error = exc
                raise
            finally:
                with self._lock:
                    if self._looks.get(version) is look:
                        del self._looks[version]
                look.ended.set()
        look.ended.wait()
        if look.error is not None:
            raise look.error
        return look.etag

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
                self._traits.note(reads=found)
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
