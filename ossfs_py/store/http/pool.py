"""Idle connections, which wait for their next request."""

import threading

from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.dialing import Dialer
from ossfs_py.store.http.faults import NoAnswerError


class ConnectionPool:
    """Idle connections, last used first. Safe for concurrent use."""

    def __init__(self, dialer: Dialer, idle_limit: int) -> None:
        self._dialer = dialer
        self._idle_limit = idle_limit
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._closed = False

    def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection for one request; ``fresh`` never takes an idle one.

        Raises:
            NoAnswerError: no connection could be opened, or the pool is closed.
        """
        if not fresh and (kept := self.acquire_idle()) is not None:
            return kept
        self._check_open()
        connection = self._dialer.dial()
        with self._lock:
            if not self._closed:
                self._live.add(connection)
                return connection
        connection.close()
        raise NoAnswerError("the store is closed")

    def acquire_idle(self) -> Connection | None:
        """A kept connection for one request; None if there is none. Does not wait."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            self.discard(connection)

    def release(self, connection: Connection) -> None:
        """Take back a connection after its answer was read to the end."""
        connection.was_used = True
        with self._lock:
            if not self._closed and len(self._idle) < self._idle_limit:
                self._idle.append(connection)
                return
        self.discard(connection)

    def suspect(self, connection: Connection, fault: NoAnswerError) -> None:
        """``connection`` failed, and similar ones may fail too.

        After a stall the idle connections are closed: a middlebox may have dropped all of them, and
        each would cost another stall timeout. A kept connection that is merely closed says nothing
        about the others: the server may close idle ones.
        """
        if fault.kind == "broken" and connection.was_used and not fault.any_byte:
            return
        self._dialer.avoid(connection.address)
        if fault.kind != "timeout":
            return
        with self._lock:
            idle, self._idle = self._idle, []
            self._live.difference_update(idle)
        for one in idle:
            one.close()

    def discard(self, connection: Connection) -> None:
        """Close a connection for good."""
        with self._lock:
            self._live.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close idle connections and make the calls on the others fail."""
        with self._lock:
            self._closed = True
            for connection in self._live:
                connection.shut()
            idle, self._idle = self._idle, []
            self._live.difference_update(idle)
        for connection in idle:
            connection.close()

    def _check_open(self) -> None:
        with self._lock:
            if self._closed:
                raise NoAnswerError("the store is closed")
