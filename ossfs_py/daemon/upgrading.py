"""Letting newer code, or other settings, take over a mount that a keeper holds."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import trio

from ossfs_py.config import Settings
from ossfs_py.config.changeable import fixed_settings
from ossfs_py.control.server import Arguments, ControlError, Progress
from ossfs_py.errors import EnvironmentProblemError, UnsavedDataError
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.host.handover import ReadyDaemon, Successor
from ossfs_py.host.keeping import KeeperGoneError, MountKeeper

log = logging.getLogger(__name__)

_READY_SECONDS = 60.0
"""A daemon is ready within a second or two; on a machine that swaps it takes longer."""


class Upgrade:
    """The command of a mount's control socket that ends its daemon in favour of another one."""

    def __init__(
        self, settings: Settings, keeper: MountKeeper | None, close_logs: Callable[[], None]
    ) -> None:
        """``keeper`` is None for a mount that ends with its daemon."""
        self._settings = settings
        self._keeper = keeper
        self._close_logs = close_logs
        self.is_kept = False
        """Whether another daemon can go on; set when the mount answers, as is ``filesystem``."""
        self.filesystem: SurvivingFilesystem | None = None
        self._is_under_way = False

    async def command(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Start the next daemon, and end when it is ready. Returns only if it fails.

        Raises:
            ControlError: why this one goes on.
        """
        if self._keeper is None:
            raise ControlError(
                "the mount was made without --restarts or --keeper, so its daemon cannot be"
                " replaced: unmount, and mount again"
            )
        if not self.is_kept:
            raise ControlError("the daemon cannot be replaced: the kernel does not support it")
        if self._is_under_way:
            raise ControlError("another upgrade is running")
        self._is_under_way = True
        try:
            # Somebody who goes away leaves two daemons that agree, whichever of them goes on.
            with trio.CancelScope(shield=True):
                await self._leave_memory()
                ready = await self._ready_successor(self._keeper, arguments.values("changes"))
                log.warning("process %d takes over the mount, version %s", *ready)
                await progress({"pid": ready.pid, "version": ready.version})
            self._end(self._keeper)
        finally:
            self._is_under_way = False
            if self.filesystem is not None:
                self.filesystem.use_memory()

    async def _leave_memory(self) -> None:
        try:
            if self.filesystem is not None:
                await self.filesystem.leave_memory()
        except UnsavedDataError as exc:
            raise ControlError(f"the running daemon continues: {exc}") from None

    async def leave(self) -> None:
        """Told to end by a keeper that has left the mount to the node's: end as soon as what
        programs have written is in the memory of this process no more. What cannot leave it in
        time is lost, as if the daemon had been killed, and programs are told.
        """
        if self._keeper is None:
            return
        try:
            if self.filesystem is not None:
                with trio.CancelScope(shield=True):
                    await self.filesystem.leave_memory()
        except UnsavedDataError as exc:
            log.warning("%s; its bytes are lost, and its programs get EIO", exc)
        log.warning("the mount is left to the keeper, for the next daemon")
        self._end(self._keeper)

    async def _ready_successor(
        self, keeper: MountKeeper, changes: Mapping[str, Any]
    ) -> ReadyDaemon:
        successor = Successor(fixed_settings(self._settings))
        try:
            with successor.its_channel:
                keeper.start_next(changes, successor.its_channel)
            with trio.fail_after(_READY_SECONDS):
                while (ready := successor.answer()) is None:
                    await trio.lowlevel.wait_readable(successor)
        except (EnvironmentProblemError, KeeperGoneError, trio.TooSlowError, OSError) as exc:
            successor.send_away()
            why = _why(exc)
            log.error("no upgrade: %s", why)  # noqa: TRY400 (a sentence for people)
            raise ControlError(
                f"the running daemon continues, because the new one cannot take over: {why}"
            ) from None
        return ready

    def _end(self, keeper: MountKeeper) -> NoReturn:
        """At once, as if killed: what is under way the kernel asks the next one for again, and an
        orderly end would answer it with an error.
        """
        keeper.handed()
        self._close_logs()
        os._exit(0)


def _why(exc: Exception) -> str:
    match exc:
        case trio.TooSlowError():
            return f"it was not ready within {_READY_SECONDS:g} seconds"
        case KeeperGoneError():
            return f"the keeper of the mount is gone ({exc})"
        case _:
            return str(exc)
