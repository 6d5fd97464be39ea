"""One node: its connections, what is known of it, and whether it is asked at all."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ossfs_py.sharedcache.connection import NodeConnection, NodeFaultError, connect_node
from ossfs_py.sharedcache.metrics import SharedCacheMetrics
from ossfs_py.sharedcache.placement import seed_of

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""How long a node that failed is left alone before it is looked at again: doubled each time."""
LYING_PAUSE_SECONDS = 60.0
_LIES = 8
"""As many damaged values, without as many good ones between them, are no accident."""
_PATIENCE_FACTOR = 8.0
_LONGEST_PATIENCE_SECONDS = 1.0
_SMOOTHING = 0.1
_IDLE_SECONDS = 30.0
"""Connections that were not needed for this long are closed."""


class Node:
    """A memcached. Safe for use from any number of threads."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        metrics: SharedCacheMetrics,
        patience_seconds: float,
    ) -> None:
        """``name`` is the same on every machine, as blocks are placed by it. ``patience_seconds``:
        the shortest time after which its silence is a fault.
        """
        self.name = name
        self.address = address
        self.seed = seed_of(name)
        self.memory_bytes = 0
        """0 before it was seen for the first time."""
        self.item_bytes = 0
        """Largest item it takes."""
        self._least_patience_seconds = patience_seconds
        self._answer_seconds = 0.0
        self._idle: deque[NodeConnection] = deque()
        self._lock = threading.Lock()
        self._up = False
        self._look_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._lies = 0
        self._told = False
        self._received = metrics.received_bytes.labels(name)
        self._sent = metrics.sent_bytes.labels(name)
        self._errors = metrics.errors

    @property
    def up(self) -> bool:
        """Whether it is asked."""
        return self._up

    @property
    def weight(self) -> float:
        """Its share, by memory; 0 while it is not asked."""
        return float(self.memory_bytes) if self._up else 0.0

    def use(self, call: Callable[[NodeConnection], T]) -> T:
        """Run ``call`` with a connection of one's own. On a connection that had been idle and was
        closed meanwhile (the node was restarted), it runs again on a new one.

        Raises:
            NodeFaultError: the node is not asked any more until it was looked at.
        """
        while True:
            try:
                connection = self._idle.pop()
                fresh = False
            except IndexError:
                connection = self._connect(self._least_patience_seconds)
                fresh = True
            connection.be_patient(self._patience_seconds)
            try:
                result = call(connection)
            except NodeFaultError as fault:
                connection.close()
                if not fresh and fault.reason == "down":
                    self._drop_idle()
                    continue
                self.failed(fault)
                raise
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return result

    def answered(self, seconds: float) -> None:
        """The first byte of an answer took so long."""
        self._answer_seconds += _SMOOTHING * (seconds - self._answer_seconds)

    def gave(self, size: int) -> None:
        """It had a good block of so many bytes."""
        self._received.inc(size)
        if self._lies:
            self._lies -= 1

    def took(self, size: int) -> None:
        """It keeps a block of so many bytes."""
        self._sent.inc(size)

    def lied(self, why: str) -> None:
        """A value was damaged: one is noted, many of them end its use for a while."""
        self._errors.labels(self.name, "damaged").inc()
        self._lies += 1
        log.info("shared cache: a value of %s is damaged (%s); it is fetched again", self.name, why)
        if self._lies >= _LIES:
            self._lies = 0
            log.warning(
                "shared cache: node %s has sent %d damaged values and is not used for %g s",
                *(self.name, _LIES, LYING_PAUSE_SECONDS),
            )
            self._leave_alone(LYING_PAUSE_SECONDS)

    def refused(self, *, too_large: bool) -> None:
        """It did not take an item: there is no memory, or its largest item is smaller than said."""
        self._errors.labels(self.name, "full").inc()
        if too_large:
            self.item_bytes //= 2

    def failed(self, fault: NodeFaultError) -> None:
        """Leave it alone for a while."""
        self._errors.labels(self.name, fault.reason).inc()
        with self._lock:
            if not self._up:
                return  # several threads met the same fault
            if not self._told:
                log.warning(
                    "shared cache: node %s is skipped: %s (it will be checked again)",
                    *(self.name, fault),
                )
                self._told = True
            self._leave_alone(self._pause_seconds)
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def is_due(self, now: float) -> bool:
        """Whether it is time to look at it again, by time.monotonic()."""
        return not self._up and now >= self._look_at

    def look(self) -> None:
        """See whether it answers, how much memory it has and how large items may be. Blocks for
        some hundreds of milliseconds at most; nobody who reads waits for it.
        """
        longest = max(_LONGEST_PATIENCE_SECONDS, self._least_patience_seconds)
        try:
            connection = connect_node(self.address, longest)
            try:
                began = time.monotonic()
                told = connection.settings()
                self._answer_seconds = time.monotonic() - began
                memory, item = int(told["maxbytes"]), int(told["item_size_max"])
            finally:
                connection.close()
        except (NodeFaultError, KeyError, ValueError) as exc:
            if not isinstance(exc, NodeFaultError):
                exc = NodeFaultError("foreign", "it is not memcached")
            self._errors.labels(self.name, exc.reason).inc()
            if not self._told:
                log.warning("shared cache: node %s is skipped: %s", self.name, exc)
                self._told = True
            self._look_at = time.monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            return
        if self._told:
            log.warning("shared cache: node %s is used again", self.name)
            self._told = False
        self.memory_bytes, self.item_bytes = memory, item
        self._up = True

    def settled(self) -> None:
        """Called every few seconds while it is up: failures of the past are forgotten, unneeded
        connections closed.
        """
        self._pause_seconds = max(self._pause_seconds / 2, FIRST_PAUSE_SECONDS)
        before = time.monotonic() - _IDLE_SECONDS
        while self._idle:
            try:
                oldest = self._idle.popleft()
            except IndexError:
                return
            if oldest.used_at >= before:
                self._idle.appendleft(oldest)
                return
            oldest.close()

    def close(self) -> None:
        """Ask it no more."""
        self._up = False
        self._drop_idle()

    @property
    def _patience_seconds(self) -> float:
        # A network that is full makes every answer late; it is no fault of one of them.
        usual = _PATIENCE_FACTOR * self._answer_seconds
        return max(min(usual, _LONGEST_PATIENCE_SECONDS), self._least_patience_seconds)

    def _connect(self, seconds: float) -> NodeConnection:
        try:
            return connect_node(self.address, seconds)
        except NodeFaultError as fault:
            self.failed(fault)
            raise

    def _leave_alone(self, seconds: float) -> None:
        self._look_at = time.monotonic() + seconds
        self._up = False
        self._drop_idle()

    def _give_back(self, connection: NodeConnection) -> None:
        connection.used_at = time.monotonic()
        self._idle.append(connection)
        if not self._up:
            self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return
