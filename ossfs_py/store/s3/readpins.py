"""Pinned reads: whether the store obeys If-Match of a GET, and a check for stores that do not."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ossfs_py.errors import EnvironmentProblemError, StoreError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.options import Choice
from ossfs_py.store.s3.error_map import AnswerError
from ossfs_py.store.s3.heads import etag_told
from ossfs_py.store.s3.probing import Prober, reads_once
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.traits import KnownTraits, Reads
from ossfs_py.store.s3.wire import Request, WireClient, patience_seconds

log = logging.getLogger(__name__)

_MOST_TRIES = 3
"""If the answers to so many probes are inconclusive, the store is not probed again: reads are
checked.
"""


@dataclass(slots=True)
class _LookAfter:
    """A HEAD that several readers wait for."""

    before: "_LookAfter | None"
    """A running one that began too early to verify later reads."""
    ended: threading.Event = field(default_factory=threading.Event)
    is_same: bool = False
    error: Exception | None = None


class ReadPins:
    """Verifies bytes that were read. Blocking; safe for concurrent use.

    rclone's server reports the ETag that it has looked up, and then sends the bytes that are in the
    file by then. So the ETag of the answer proves nothing. A HEAD afterwards does: it has the
    pinned ETag only if nothing was written before the bytes were sent.

    A probe beside the first read finds out whether the store is like that: a second GET of the same
    object that asks for another version. It delays no reader, and costs one request a day for each
    endpoint.
    """

    def __init__(
        self,
        look: Callable[[ObjectVersion], bool],
        probe: Callable[[ObjectVersion], Reads | None],
        traits: KnownTraits,
        choice: Choice,
        whose: str = "this store",
    ) -> None:
        """``look`` is whether a version's key still has its ETag and size. ``probe`` asks for a
        version that is not there. ``whose`` is the subject of messages.
        """
        self._head = look
        self._probe = probe
        self._traits = traits
        self._choice = choice
        self._whose = whose
        self._tries = 0
        self._looks: dict[ObjectVersion, _LookAfter] = {}
        """Running ones, and in the next field those that begin when these have ended:"""
        self._next_looks: dict[ObjectVersion, _LookAfter] = {}
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None
        """Set when the running probe has ended."""

    def ask_beside(self, version: ObjectVersion) -> None:
        """Begin a probe, if needed, in a thread of its own."""
        if self.is_trusted(version) or self._choice != "auto":
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
        """Return if the bytes just read are those of ``version``.

        Raises:
            VersionChangedError: the key holds another version now.
            ObjectMissingError, StoreError: it could not be verified.
        """
        if self.is_trusted(version):
            return
        asking = self._asking
        if asking is not None:
            asking.wait()
            if self.is_trusted(version):
                return
        if not self._look(version):
            raise VersionChangedError(
                "the object changed at the store", operation="GetObject", key=version.key
            )

    def close(self) -> None:
        """Write to disk what was found out."""
        self._traits.close()

    def _look(self, version: ObjectVersion) -> bool:
        """Whether the key still has ``version``. Readers that wait share one HEAD: rclone reads the
        whole object to answer it, and 16 HEADs at once would take as long as 16 objects.
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
                # Later callers may have read after the answer.
                self._looks[version] = self._next_looks.pop(version)
            try:
                look.is_same = self._head(version)
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
        return look.is_same

    def is_trusted(self, version: ObjectVersion) -> bool:
        """Whether bytes of ``version`` need no verification."""
        # A version with an id never changes. One without an ETag cannot be verified.
        if version.version_id is not None or not version.has_etag:
            return True
        return self._choice == "on" or (
            self._choice == "auto" and self._traits.now.reads == "pinned"
        )

    def _ask(self, version: ObjectVersion, asking: threading.Event) -> None:
        try:
            found = self._probe(version)
            if found is not None:
                self._traits.note(reads=found)
            if found == "unpinned":
                log.warning(
                    "%s may give bytes of another version than the one asked for: each request for "
                    "bytes is followed by a HEAD",
                    self._whose,
                )
        except (StoreError, EnvironmentProblemError, AnswerError, NoAnswerError) as exc:
            log.info("whether reads can be pinned is not known yet: %s", exc)
        finally:
            with self._lock:
                self._asking = None
            asking.set()


def pins_of_store(
    wire: WireClient, prober: Prober, traits: KnownTraits, choice: Choice
) -> ReadPins:
    """Those of the store itself, whose requests are retried."""

    def look(version: ObjectVersion) -> bool:
        patience = patience_seconds(version.size)
        asking = Request("HeadObject", "HEAD", version.key, patience_seconds=patience)
        return _is_of(version, wire.call(asking).headers)

    return ReadPins(look, prober.reads, traits, choice)


def pins_of_read_endpoint(
    url: str, wire: WireClient, traits: KnownTraits, choice: Choice
) -> ReadPins:
    """Those of an address that is asked once: if it fails, the store has the bytes."""

    def look(version: ObjectVersion) -> bool:
        asking = Request("HeadObject", "HEAD", version.key)
        return _is_of(version, wire.once(asking, Attempt()).headers)

    def probe(version: ObjectVersion) -> Reads:
        return reads_once(wire, version, Attempt())

    return ReadPins(look, probe, traits, choice, f"the read endpoint {url}")


def _is_of(version: ObjectVersion, headers: Mapping[str, str]) -> bool:
    same_size = headers.get("content-length") == str(version.size)
    return same_size and etag_told(headers) == version.etag
