"""Notifications to the service manager: ready, status, stopping, and the watchdog."""

import contextlib
from collections.abc import Iterator

import trio

from ossfs_py.config import Settings
from ossfs_py.config.units import counted
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.host.notify import Notifier
from ossfs_py.telemetry.metrics import Metrics

_PERIOD_SECONDS = 5.0
"""How often the status line is brought up to date: often enough for somebody who watches it."""
_PINGS_PER_TIMEOUT = 3
"""sd_watchdog_enabled(3) asks for two; one may then be lost or late on a busy machine."""
_END_GRACE_SECONDS = 30.0
"""On top of the time a failing request is tried again: setting aside, unmounting."""


class ServiceState:
    """Belongs to the trio thread: a loop that hangs falls silent, which the watchdog notices."""

    def __init__(self, settings: Settings, notifier: Notifier, metrics: Metrics) -> None:
        self._settings = settings
        self._notifier = notifier
        self._metrics = metrics
        self._filesystem: Filesystem | None = None
        self._draining = False
        self._sent_bytes = 0.0

    def serving(self, filesystem: Filesystem) -> None:
        """The mount answers."""
        self._filesystem = filesystem
        if not self._draining:
            self._notifier.ready(self._line())

    def draining(self) -> None:
        """The end has begun: what is dirty is uploaded."""
        self._draining = True
        self._sent_bytes = self._sent()
        self._notifier.stopping(self._line())

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Settings are read again in the block."""
        if self._filesystem is None or self._draining:
            yield
            return
        self._notifier.reloading()
        try:
            yield
        finally:
            self._notifier.ready(self._line())

    async def keep_told(self) -> None:
        """Feed the watchdog and keep the status line true, until cancelled."""
        if not self._notifier.listening:
            return
        watchdog = self._notifier.watchdog_seconds
        period = _PERIOD_SECONDS
        if watchdog is not None:
            period = min(period, watchdog / _PINGS_PER_TIMEOUT)
        while True:
            self._notifier.alive()
            if self._filesystem is not None:
                self._notifier.status(self._line())
            if self._draining:
                self._ask_for_time()
            await trio.sleep(period)

    def _ask_for_time(self) -> None:
        """An upload that gets on may outlast the stop timeout; one that does not ends by itself
        when the store has been tried for long enough."""
        sent = self._sent()
        if sent > self._sent_bytes:
            self._sent_bytes = sent
            self._notifier.extend_timeout(
                self._settings.retry_budget_seconds
                + self._settings.stall_timeout_seconds
                + _END_GRACE_SECONDS
            )

    def _line(self) -> str:
        settings = self._settings
        where = f"{settings.source} at {settings.mountpoint} ({settings.data_path})"
        received = self._sample("ossfs_store_received_bytes_total")
        moved = f"{received / 1e9:.1f} GB received, {self._sent() / 1e9:.1f} GB sent"
        if self._draining:
            return f"Uploading what is not saved yet: {where}, {moved}"
        pending = self._filesystem.pending_uploads if self._filesystem is not None else 0
        waiting = f", {counted(pending, 'file')} to be uploaded" if pending else ""
        kept = self._sample("ossfs_kept_unsaved_files")
        unsaved = f", {kept:.0f} unsaved files are kept (ossfs-py recover)" if kept else ""
        return f"Serving {where}: {moved}{waiting}{unsaved}"

    def _sent(self) -> float:
        return self._sample("ossfs_store_sent_bytes_total")

    def _sample(self, name: str) -> float:
        return self._metrics.registry.get_sample_value(name) or 0.0
