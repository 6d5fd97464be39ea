"""A namespace over the fake store, run on trio with a clock that tests can move."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.namespace import Inode, Namespace, NamespaceOptions
from ossfs_py.namespace.news import KernelNews
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics
from tests.support.fake_store import FakeStore


class Mounted:
    """What a test of the namespace works with."""

    def __init__(self, store: FakeStore, workers: Workers, options: dict[str, Any]) -> None:
        self.store = store
        self.metrics = Metrics()
        self.changed: list[Inode] = []
        self.taken: list[tuple[Inode, str, Inode]] = []
        self.attributes_changed: list[Inode] = []
        self.appeared: list[tuple[Inode, str]] = []
        self.namespace = Namespace(
            store,
            workers,
            NamespaceOptions(**options),
            self.metrics,
            KernelNews(
                self.changed.append,
                lambda directory, name, inode: self.taken.append((directory, name, inode)),
                self.attributes_changed.append,
                lambda directory, name: self.appeared.append((directory, name)),
            ),
        )
        self.clock: trio.testing.MockClock

    @property
    def root(self) -> Inode:
        return self.namespace.root

    async def at(self, path: str) -> Inode:
        """Look a path up, segment by segment."""
        inode = self.root
        for name in path.split("/"):
            inode = await self.namespace.lookup(inode, name)
        return inode

    async def answered(self) -> None:
        """Wait until no question is under way, those included that were asked ahead."""
        deadline = time.monotonic() + 60
        resolver = self.namespace._resolver
        while resolver._questions or (resolver.made._last and resolver.made._last.pending):
            assert time.monotonic() < deadline, "an answer of the store was lost"
            await trio.testing.wait_all_tasks_blocked()
            time.sleep(0.0001)  # noqa: ASYNC251 - lets the store's threads have the processor

    async def names(self, inode: Inode) -> list[str]:
        return [name for name, _inode in await self.entries(inode)]

    async def entries(self, inode: Inode) -> list[tuple[str, Inode]]:
        handle = self.namespace.list_directory(inode)
        result: list[tuple[str, Inode]] = []
        offset = 0
        while batch := await handle.entries_from(offset):
            result += [(name, found) for _offset, name, found in batch]
            offset = batch[-1][0]
        return result

    def create(self, parent: Inode, name: str) -> Inode:
        return self.namespace.create_local(parent, name, 0o640, 7, 8)

    def commit(self, inode: Inode, content: bytes) -> ObjectVersion:
        """What the filesystem does when a dirty file is closed."""
        metadata = self.namespace.commit_metadata(inode, explicit_mtime_only=True)
        version = self.store.seed(self.namespace.key_of(inode), content, metadata=metadata)
        self.namespace.note_commit(inode, version, metadata)
        return version


def mounted(
    test: Callable[[Mounted], Awaitable[None]],
    store: FakeStore | None = None,
    *,
    threads: int = 4,
    **options: Any,
) -> FakeStore:
    """Run a test on a namespace; trio's clock stands still unless the test moves it."""
    clock = trio.testing.MockClock()
    used = store if store is not None else FakeStore()

    async def main() -> None:
        workers = Workers("test", threads)
        try:
            fixture = Mounted(used, workers, options)
            fixture.clock = clock
            await test(fixture)
        finally:
            workers.close()
        assert workers.join(120)

    trio.run(main, clock=clock)
    return used
