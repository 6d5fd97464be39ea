"""The commands of a mount with a shared cache: filling it, and what it has."""

from collections.abc import Iterable, Mapping
from typing import Any

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.control.warming import WarmUps
from ossfs_py.datapath.filling import FillProgress
from ossfs_py.datapath.sharedfilling import SharedFiller
from ossfs_py.model import ObjectVersion


class SharedCommands:
    """The commands of one mount. ``filler`` is None on a mount that shares nothing: every command
    then says so.
    """

    def __init__(self, warm_ups: WarmUps, filler: SharedFiller | None) -> None:
        self._warm_ups = warm_ups
        self._filler = filler

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {
            "shared.warm-up": self._warm_up,
            "shared.check": self._check,
            "shared.show": self._show,
        }

    async def _warm_up(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        return await self._warm_ups.warm_up(_Shared(self._answering()), arguments, progress)

    async def _check(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        return await self._warm_ups.check(_Shared(self._answering()), arguments, progress)

    async def _show(self, _arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        nodes = self._answering().stock.nodes()
        return {
            "up": sorted(nodes.up),
            "down": sorted(nodes.down),
            "memory_bytes": nodes.memory_bytes,
        }

    def _answering(self) -> SharedFiller:
        if self._filler is None:
            raise ControlError(
                "this mount has no shared cache: mount with --shared-cache to have one"
            )
        if not self._filler.stock.nodes().up:
            raise ControlError("no node of the shared cache answers: see ossfs-py doctor")
        return self._filler


class _Shared:
    name = "shared cache"
    gone = "some of it is gone again: the nodes have too little memory, or one of them failed"

    def __init__(self, filler: SharedFiller) -> None:
        self._filler = filler

    async def fill(
        self, versions: Iterable[ObjectVersion], tasks: int, progress: FillProgress
    ) -> None:
        await self._filler.fill(versions, tasks, progress)

    async def shares(self, versions: list[ObjectVersion]) -> list[int]:
        return await self._filler.shares(versions)
