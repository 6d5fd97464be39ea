"""A small file that turns out to be a symbolic link of s3fs when its first bytes come."""

import stat
from pathlib import Path

import pytest

from ossfs_py.errors import VersionChangedError
from tests.support.filesystems import Mounted, on_mount
from tests.support.mounting import DATA_PATHS

LINK = {"mode": str(stat.S_IFLNK | 0o777)}


@pytest.mark.parametrize("seen", [False, True], ids=["not seen", "seen"])
@pytest.mark.parametrize("data_path", DATA_PATHS)
def test_what_was_opened_as_a_file_goes_on_as_what_the_link_leads_to(
    data_path: str, seen: bool, tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("hub/blobs/blob", b"reached")
        m.store.seed("hub/link", b"blobs/blob", metadata=LINK)
        await m.names(("hub",))
        opened = await m.open(("hub", "link"))
        if seen:
            assert (await m.fs.describe("hub/link")).kind == "symlink"
        assert await m.read(opened) == b"reached"
        assert (await m.fs.attributes(opened.inode)).attributes.size == len(b"reached")
        assert await m.readlink(("hub", "link")) == b"blobs/blob"
        await m.close(opened)

    on_mount(data_path, tmp_path, test)


@pytest.mark.parametrize("target", [b"nothing", b"/absolute", b"../../out", b"link"])
def test_a_link_to_no_file_of_the_mount_is_never_read_as_its_target(
    target: bytes, tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("hub/link", target, metadata=LINK)
        await m.names(("hub",))
        opened = await m.open(("hub", "link"))
        for _ in range(2):  # the kernel asks twice
            with pytest.raises(VersionChangedError):
                await m.read(opened)
        await m.close(opened)

    on_mount("direct", tmp_path, test)
