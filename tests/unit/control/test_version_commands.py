"""versions, restore and undelete, over the store in memory."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ossfs_py.control.server import Arguments, ControlError
from ossfs_py.control.version_commands import VersionCommands
from ossfs_py.errors import AccessDeniedError, NotPermittedError, ReadOnlyError
from ossfs_py.namespace.keys import RESERVED_PREFIX
from tests.support.filesystems import Mounted, on_mount
from tests.support.versioned_store import VersionedStore

Ask = Callable[..., Awaitable[Mapping[str, Any]]]


def asked(
    work: Path,
    store: VersionedStore,
    test: Callable[[Ask, Mounted], Awaitable[None]],
    **options: Any,
) -> None:
    """Run ``test`` with a way to ask a mount of the prefix ``team/``."""

    async def main(fs: Mounted) -> None:
        network = fs.bench.writes.context.network
        table = VersionCommands(
            fs.fs, store, network, prefix="team/", reserved=f"team/{RESERVED_PREFIX}"
        ).table()

        async def ask(command: str, **arguments: object) -> Mapping[str, Any]:
            rows: list[Any] = []

            async def progress(state: Mapping[str, Any]) -> None:
                rows.extend(state["files"])

            told = await table[command](Arguments(arguments), progress)
            return {**told, "rows": rows}

        await test(ask, fs)

    on_mount("temp", work, main, store=store, prefix="team/", **options)


def test_versions_tell_time_size_writer_and_deletions_of_the_very_name(tmp_path: Path) -> None:
    store = VersionedStore()
    by_whom = {"written-by": "ada@gpu-7", "written-at": "2026-11-20T10:00:00Z"}
    store.seed("team/file", b"first", metadata=by_whom)
    store.erase("team/file")
    store.seed("team/file", b"second")
    store.seed("team/file.bak", b"another")

    async def test(ask: Ask, _fs: Mounted) -> None:
        told = await ask("versions", path="file")
        assert told["key"] == "team/file"
        assert [row.get("bytes") for row in told["versions"]] == [6, None, 5]
        assert [row["deleted"] for row in told["versions"]] == [False, True, False]
        assert [row["latest"] for row in told["versions"]] == [True, False, False]
        assert told["versions"][2]["writer"] == "ada@gpu-7"
        assert told["versions"][0]["writer"] is None
        with pytest.raises(ControlError, match="no file ever had this name"):
            await ask("versions", path="fil")
        with pytest.raises(ControlError, match="not a path below the mountpoint"):
            await ask("versions", path="../other")

    asked(tmp_path, store, test)


def test_restore_takes_the_version_before_or_that_of_a_time_or_of_an_id(tmp_path: Path) -> None:
    store = VersionedStore()
    times = []
    for content in (b"one", b"two", b"three"):
        store.seed("team/file", content, metadata={"said": content.decode()})
        times.append(store.now_ns)

    async def test(ask: Ask, fs: Mounted) -> None:
        assert await fs.read_file(("file",)) == b"three"
        assert (await ask("restore", path="file"))["restored"]
        assert await fs.read_file(("file",)) == b"two", "seen at once"
        assert store.metadata("team/file") == {"said": "two"}
        await ask("restore", path="file", at_ns=times[0])
        assert await fs.read_file(("file",)) == b"one"
        oldest = store.history["team/file"][-1][0].version_id
        newest = store.history["team/file"][0][0].version_id
        assert not (await ask("restore", path="file", version=newest))["restored"]
        await fs.unlink(("file",))
        await ask("restore", path="file")
        assert await fs.read_file(("file",)) == b"one"
        await fs.unlink(("file",))
        await ask("restore", path="file", version=oldest)
        assert await fs.read_file(("file",)) == b"one"
        for wrong, why in (
            ({"version": "none"}, "no version 'none'"),
            ({"at_ns": times[0] - 1}, "no version that old"),
            ({"at_ns": store.history["team/file"][1][0].mtime_ns}, "was deleted then"),
        ):
            with pytest.raises(ControlError, match=why):
                await ask("restore", path="file", **wrong)

    asked(tmp_path, store, test)


def test_a_file_that_is_being_written_is_not_restored(tmp_path: Path) -> None:
    store = VersionedStore()
    store.seed("team/file", b"one")
    store.seed("team/file", b"two")

    async def test(ask: Ask, fs: Mounted) -> None:
        opened = await fs.open(("file",), 0o2)
        await fs.write(opened, 0, b"T")
        with pytest.raises(ControlError, match="is being written"):
            await ask("restore", path="file")
        await fs.close(opened)
        reader = await fs.open(("file",))
        assert await fs.read(reader) == b"Two"
        await ask("restore", path="file", version=store.history["team/file"][-1][0].version_id)
        await fs.close(reader)
        assert await fs.read_file(("file",)) == b"one"

    asked(tmp_path, store, test)


def deleted_tree() -> tuple[VersionedStore, dict[str, tuple[bytes, dict[str, str]]]]:
    store = VersionedStore(page_size=5)
    tree = {}
    for number in range(20):
        key = f"team/tree/{number % 3}/{number}"
        tree[key] = (b"%d" % number, {"number": str(number)})
        store.seed(key, b"an older one")
        store.seed(key, tree[key][0], metadata=tree[key][1])
    store.seed("team/tree/marker/", b"", metadata={"mode": "16877"})
    tree["team/tree/marker/"] = (b"", {"mode": "16877"})
    store.seed("team/treetop", b"beside it")
    for key in [*tree, "team/treetop"]:
        store.erase(key)
    store.erase("team/tree/0/0")  # deleted twice
    store.seed(f"team/{RESERVED_PREFIX}deleted-1", b"ours")
    store.erase(f"team/{RESERVED_PREFIX}deleted-1")
    return store, tree


def test_a_deleted_tree_comes_back_equal_with_metadata_and_times(tmp_path: Path) -> None:
    store, tree = deleted_tree()
    times = {key: store.history[key][-1 if key.endswith("/") else -2][0].mtime_ns for key in tree}

    async def test(ask: Ask, fs: Mounted) -> None:
        assert await fs.names() == []
        told = await ask("undelete", paths=["tree"], dry_run=True)
        assert told["files"] == len(tree) == len(told["rows"])
        assert store.objects == {}
        # Broken off in the middle, and given again.
        store.fail("delete_version", AccessDeniedError("MFA Delete"), key="team/tree/2/2")
        store.fail("copy", AccessDeniedError("for now"), key="team/tree/2/2")
        told = await ask("undelete", paths=["tree"])
        assert list(told["failed"]) == ["team/tree/2/2"]
        told = await ask("undelete", paths=["tree"])
        assert (told["files"], told["failed"]) == (1, {})
        assert {k: (o.content, o.info.metadata) for k, o in store.objects.items()} == tree
        assert {key: o.info.mtime_ns for key, o in store.objects.items()} == times
        assert await fs.names() == ["tree"]
        assert (await ask("undelete", paths=["tree"]))["files"] == 0
        told = await ask("undelete", paths=[""])
        assert [row["path"] for row in told["rows"]] == ["treetop"]

    asked(tmp_path, store, test)


def test_what_was_deleted_before_since_and_what_has_no_version_left_stays(tmp_path: Path) -> None:
    store = VersionedStore()
    for name in ("early", "late", "empty"):
        store.seed(f"team/{name}", b"content")
    store.erase("team/early")
    since_ns = store.now_ns + 1
    store.erase("team/late")
    store.erase("team/empty")
    store.history["team/empty"] = store.history["team/empty"][:1]  # as a lifecycle rule leaves it

    async def test(ask: Ask, fs: Mounted) -> None:
        told = await ask("undelete", paths=["early", "late", "empty"], since_ns=since_ns)
        assert (told["files"], told["without_version"]) == (1, 1)
        assert await fs.names() == ["late"]

    asked(tmp_path, store, test)


def test_where_markers_may_not_be_removed_the_version_is_copied(tmp_path: Path) -> None:
    store = VersionedStore()
    store.seed("team/file", b"content", metadata={"kept": "yes"})
    store.erase("team/file")
    store.fail("delete_version", AccessDeniedError("MFA Delete"))

    async def test(ask: Ask, _fs: Mounted) -> None:
        assert (await ask("undelete", paths=["file"]))["files"] == 1
        assert store.content("team/file") == b"content"
        assert store.metadata("team/file") == {"kept": "yes"}

    asked(tmp_path, store, test)


def test_removals_that_write_back_owes_are_in_the_history_first(tmp_path: Path) -> None:
    store = VersionedStore()
    store.seed("team/file", b"content")

    async def test(ask: Ask, fs: Mounted) -> None:
        synced = []

        async def sync() -> None:
            synced.append(True)
            store.delete("team/file")

        fs.fs.sync = sync  # type: ignore[method-assign]
        assert (await ask("undelete", paths=["file"]))["files"] == 1
        assert synced == [True]

    asked(tmp_path, store, test)


def test_a_mount_that_may_not_overwrite_brings_nothing_back(tmp_path: Path) -> None:
    store, _tree = deleted_tree()

    async def refused(ask: Ask, _fs: Mounted) -> None:
        for command, what in (("restore", {"path": "f"}), ("undelete", {"paths": ["tree"]})):
            with pytest.raises((NotPermittedError, ReadOnlyError)):
                await ask(command, **what)
        assert (await ask("undelete", paths=["tree"], dry_run=True))["files"] > 0

    asked(tmp_path, store, refused, protect={"overwrite"})
    asked(tmp_path, store, refused, read_only=True)
