"""The trash of a mount: which copies are listed, which one comes back, which ones go."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ossfs_py.control.server import Arguments
from ossfs_py.control.trash_commands import TrashCommands
from ossfs_py.model import ObjectInfo
from ossfs_py.writing.kept import kept_key
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount

Ask = Callable[..., Awaitable[Mapping[str, Any]]]
DAY_NS = 86_400 * 10**9
NOW_NS = 1_700_000_000 * 10**9


def keep(store: FakeStore, key: str, content: bytes, days_ago: int, **metadata: str) -> str:
    info = ObjectInfo(key, len(content), "etag", NOW_NS - 400 * DAY_NS)
    name = kept_key("bin/", info, NOW_NS - days_ago * DAY_NS)
    store.seed(name, content, metadata=metadata)
    return name


def asked(
    work: Path, store: FakeStore, test: Callable[[Ask, Mounted], Awaitable[None]], trash: str = ""
) -> None:
    async def main(fs: Mounted) -> None:
        network = fs.bench.writes.context.network
        table = TrashCommands(fs.fs, store, network, prefix="", trash="bin/").table()

        async def ask(command: str, path: str = "", **values: object) -> Mapping[str, Any]:
            rows: list[Mapping[str, Any]] = []

            async def progress(state: Mapping[str, Any]) -> None:
                rows.extend(state["files"])

            told = await table[f"trash.{command}"](Arguments({"path": path, **values}), progress)
            return {**told, "rows": [(row["path"], row["bytes"]) for row in rows]}

        await test(ask, fs)

    on_mount("temp", work, main, store=store, trash=trash)


def filled() -> FakeStore:
    store = FakeStore(page_size=3)
    for age in (1, 3, 9):
        keep(store, "d/file", b"x" * age, age, note="mine")
        keep(store, "d/file~2", b"tilde", age)
    keep(store, "d", b"was a file then", 9)
    keep(store, "other", b"other", 1)
    store.seed("bin/2023-11-14/somebody else's", b"")
    store.seed("bin/readme", b"")
    return store


def test_a_path_has_its_own_copies_and_those_below_it_of_the_days_in_question(
    tmp_path: Path,
) -> None:
    async def test(ask: Ask, _fs: Mounted) -> None:
        assert (await ask("list"))["files"] == 8
        assert (await ask("list", "d"))["files"] == 7
        assert (await ask("list", "d/file"))["rows"] == [("d/file", size) for size in (9, 3, 1)]
        recent = await ask("list", "d/file", since_ns=NOW_NS - 3 * DAY_NS)
        assert recent["rows"] == [("d/file", 3), ("d/file", 1)]

    asked(tmp_path, filled(), test)


def test_the_newest_copy_comes_back_as_old_as_the_file_was_and_what_exists_stays(
    tmp_path: Path,
) -> None:
    store = filled()

    async def test(ask: Ask, _fs: Mounted) -> None:
        store.seed("other", b"made since")
        told = await ask("restore", dry_run=True)
        assert (told["files"], told["there_already"]) == (3, 1)
        assert (await ask("restore", "d/file"))["rows"] == [("d/file", 1)]
        assert store.content("d/file") == b"x"
        assert store.metadata("d/file") == {
            "note": "mine",
            "mtime": str((NOW_NS - 400 * DAY_NS) // 10**9),
        }
        assert (await ask("restore", "d/file"))["there_already"] == 1
        assert (await ask("restore", "other"))["rows"] == []
        over = await ask("restore", "other", overwrite=True)
        assert over["rows"] == [("other", 5)]
        assert store.content("other") == b"other"
        # Also by a mount that keeps nothing itself.
        assert (await ask("list", "other"))["rows"] == [("other", len(b"made since"))]

    asked(tmp_path, store, test)


def test_only_old_copies_of_the_path_go_and_nothing_of_others(tmp_path: Path) -> None:
    store = filled()

    async def test(ask: Ask, _fs: Mounted) -> None:
        until_ns = NOW_NS - 2 * DAY_NS
        assert (await ask("empty", "d/file", until_ns=until_ns, dry_run=True))["files"] == 2
        assert (await ask("list", "d/file"))["files"] == 3
        assert (await ask("empty", "d/file", until_ns=until_ns))["files"] == 2
        assert (await ask("list"))["files"] == 6
        assert (await ask("empty"))["files"] == 6
        assert store.keys() == ["bin/2023-11-14/somebody else's", "bin/readme"]

    asked(tmp_path, store, test)
