"""cp on the server: which objects are copied, which are passed over, and which may not be."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ossfs_py.control.copy_commands import CopyCommands, CopyPlace
from ossfs_py.control.server import Arguments, ControlError
from ossfs_py.errors import AccessDeniedError, ReadOnlyError
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount
from tests.support.tree_order_store import TreeOrderStore

Ask = Callable[..., Awaitable[Mapping[str, Any]]]
RESERVED = ".ossfs-py-"


def asked(
    work: Path,
    store: FakeStore,
    test: Callable[[Ask, Mounted], Awaitable[None]],
    **options: Any,
) -> None:
    async def main(fs: Mounted) -> None:
        network = fs.bench.writes.context.network
        place = CopyPlace(store.place, "bucket", "", RESERVED, is_past=False)
        table = CopyCommands(fs.fs, store, network, place).table()

        async def ask(
            source: str, path: str, *, recursive: bool = True, reserved: str = RESERVED
        ) -> Mapping[str, Any]:
            values = {"source": source, "path": path, "recursive": recursive, "reserved": reserved}

            async def progress(_state: Mapping[str, Any]) -> None:
                """Nobody looks."""

            return await table["copy"](Arguments(values), progress)

        await test(ask, fs)

    on_mount("temp", work, main, store=store, **options)


def filled() -> FakeStore:
    store = FakeStore(page_size=7)
    for number in range(40):
        store.seed(f"model/{number % 4}/{number}", b"%d" % number, metadata={"n": str(number)})
    store.seed("model/empty/", b"", metadata={"mode": "16877"})
    store.seed("model.txt", b"beside it")
    return store


def copies(store: FakeStore, prefix: str) -> dict[str, tuple[bytes, Mapping[str, str] | None]]:
    return {
        key[len(prefix) :]: (kept.content, kept.info.metadata)
        for key, kept in store.objects.items()
        if key.startswith(prefix)
    }


def test_a_tree_is_copied_with_metadata_and_no_byte_is_read_or_sent(tmp_path: Path) -> None:
    store = filled()

    async def test(ask: Ask, fs: Mounted) -> None:
        assert set(await fs.names()) == {"model", "model.txt"}
        told = await ask("model", "clone")
        assert (told["files"], told["there_already"], told["failed"]) == (41, 0, {})
        assert copies(store, "clone/") == copies(store, "model/")
        assert store.bytes_read == store.bytes_written == 0
        assert set(await fs.names()) == {"clone", "model", "model.txt"}, "seen at once"
        assert await fs.read_file(("clone", "1", "1")) == b"1"

    asked(tmp_path, store, test)


def test_with_a_trash_what_a_copy_takes_the_place_of_is_kept(tmp_path: Path) -> None:
    store = filled()
    store.seed("clone/1/1", b"was here")

    async def test(ask: Ask, _fs: Mounted) -> None:
        assert (await ask("model", "clone"))["failed"] == {}
        assert store.content("clone/1/1") == b"1"
        (kept,) = [key for key in store.objects if key.startswith("bin/")]
        assert store.content(kept) == b"was here"

    asked(tmp_path, store, test, trash="bin/")


def test_a_copy_that_was_broken_off_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Objects of the same size that are not the copies are replaced."""
    store = filled()
    store.fail("copy", AccessDeniedError("for now"), key="model/1/5", times=1)

    async def test(ask: Ask, _fs: Mounted) -> None:
        told = await ask("model", "clone")
        assert list(told["failed"]) == ["clone/1/5"]
        store.take_requests()
        told = await ask("model", "clone")
        assert told["failed"] == {}
        assert copies(store, "clone/") == copies(store, "model/")

    asked(tmp_path, store, test)


def test_what_is_there_with_the_same_etag_is_passed_over(tmp_path: Path) -> None:
    """As stores answer whose ETag is the content's digest."""
    store = filled()

    async def test(ask: Ask, _fs: Mounted) -> None:
        await ask("model", "clone")
        for key, kept in list(store.objects.items()):
            if key.startswith("clone/"):
                source = store.objects["model/" + key[len("clone/") :]]
                info = type(kept.info)(
                    key, kept.info.size, source.info.etag, kept.info.mtime_ns, kept.info.metadata
                )
                store.objects[key] = type(kept)(kept.content, info)
        store.seed("model/1/5", b"7")
        store.take_requests()
        told = await ask("model", "clone")
        assert (told["files"], told["there_already"]) == (1, 40)
        assert store.requests["copy"] == 1
        assert store.content("clone/1/5") == b"7"

    asked(tmp_path, store, test)


def test_a_file_is_copied_by_itself(tmp_path: Path) -> None:
    store = filled()

    async def test(ask: Ask, fs: Mounted) -> None:
        assert (await ask("model.txt", "model/copy", recursive=False))["files"] == 1
        assert await fs.read_file(("model", "copy")) == b"beside it"
        for source, path, why in (
            ("nothing", "new", "no such file in the bucket: nothing"),
            ("model.txt", "model.txt", "onto itself"),
            ("model.txt", "../out", "not a path below"),
        ):
            with pytest.raises(ControlError, match=why):
                await ask(source, path, recursive=False)
        with pytest.raises(ControlError, match="into itself"):
            await ask("model", "model/inside")

    asked(tmp_path, store, test)


def test_a_protected_mount_gets_new_files_and_keeps_its_own(tmp_path: Path) -> None:
    store = filled()
    store.seed("clone/1/5", b"kept")

    async def test(ask: Ask, _fs: Mounted) -> None:
        told = await ask("model", "clone")
        assert list(told["failed"]) == ["clone/1/5"]
        assert told["files"] == 40
        assert store.content("clone/1/5") == b"kept"

    asked(tmp_path, store, test, protect={"overwrite"})

    async def refused(ask: Ask, _fs: Mounted) -> None:
        with pytest.raises(ReadOnlyError):
            await ask("model", "elsewhere")

    asked(tmp_path, store, refused, read_only=True)


def test_the_mounts_own_objects_are_not_copied(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed("team/file", b"content")
    store.seed(f"team/{RESERVED}deleted-1", b"a mount's of that prefix")

    async def test(ask: Ask, _fs: Mounted) -> None:
        await ask("team", "clone", reserved=f"team/{RESERVED}")
        assert copies(store, "clone/").keys() == {"file"}

    asked(tmp_path, store, test)


@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 8])
def test_what_is_there_already_is_found_in_whatever_order_the_store_has_keys(
    tmp_path: Path, page_size: int
) -> None:
    store = TreeOrderStore(page_size=page_size)
    for name in ("c", "d/1", "d/2", "d/3", "d-x", "d.y/1", "d0", "e/1"):
        store.seed(f"model/{name}", b"x")

    async def test(ask: Ask, _fs: Mounted) -> None:
        await ask("model", "clone")
        for key, kept in list(store.objects.items()):
            if key.startswith("clone/"):
                etag = store.objects["model/" + key[len("clone/") :]].info.etag
                store.objects[key] = type(kept)(kept.content, kept.info._replace(etag=etag))
        told = await ask("model", "clone")
        assert (told["files"], told["there_already"]) == (0, 8)

    asked(tmp_path, store, test)
