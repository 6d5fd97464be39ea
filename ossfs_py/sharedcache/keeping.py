"""The nodes as they come, go and fail: looked at beside everything else. On the trio thread."""

import logging
import time

import trio

from ossfs_py.runtime.workers import Workers
from ossfs_py.sharedcache.cache import SharedCache, SharedCacheOptions
from ossfs_py.sharedcache.members import (
    Member,
    MembersUnknownError,
    find_members,
    is_this_machine_only,
)
from ossfs_py.sharedcache.node import Node

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_MEMBERS_SECONDS = 5.0
"""How often names are resolved and files read again."""


class Keeping:
    """Keeps the nodes of a shared cache true to what describes them."""

    def __init__(self, cache: SharedCache, options: SharedCacheOptions, workers: Workers) -> None:
        self._cache = cache
        self._options = options
        self._workers = workers
        self._members: tuple[Member, ...] = ()
        self._members_at = 0.0
        self._problem = ""
        nodes = cache.metrics.nodes
        nodes.labels("up").set_function(lambda: sum(node.up for node in cache.nodes))
        nodes.labels("down").set_function(lambda: sum(not node.up for node in cache.nodes))

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await trio.sleep(_PERIOD_SECONDS)

    async def look(self) -> None:
        """See who the nodes are, if it is time for that, and whether those left out answer again.
        Returns when all have answered or have taken too long. Cancelled, nothing is left behind.
        """
        now = time.monotonic()
        if now >= self._members_at:
            self._members_at = now + _MEMBERS_SECONDS
            await self._find_members()
            for node in self._cache.nodes:
                if node.up:
                    node.settled()
        async with trio.open_nursery() as nursery:
            for node in self._cache.nodes:
                if node.is_due(now):
                    nursery.start_soon(self._workers.run, node.look)

    async def _find_members(self) -> None:
        try:
            members = await self._workers.run(find_members, self._options.nodes)
        except MembersUnknownError as exc:
            if str(exc) != self._problem:
                self._problem = str(exc)
                log.warning("shared cache: %s; the nodes known before are used", exc)
            return
        self._problem = ""
        if members == self._members:
            return
        self._members = members
        known = {(node.name, node.address): node for node in self._cache.nodes}
        nodes = []
        for member in members:
            node = known.pop((member.name, member.address), None)
            nodes.append(
                node
                or Node(
                    member.name, member.address, self._cache.metrics, self._options.patience_seconds
                )
            )
        self._cache.nodes = tuple(nodes)
        for gone in known.values():
            gone.close()
        log.info("shared cache: nodes are %s", ", ".join(node.name for node in nodes) or "none")
        if is_this_machine_only(self._options.nodes, members):
            log.warning(
                "shared cache: %s names only this machine, so no other machine shares it",
                self._options.nodes,
            )
