"""The kernel's mount table, whatever the mountpoints are called."""

import os
from pathlib import Path

import pytest

from ossfs_py.host.mounttable import read_mount_table

AWKWARD = {
    b"/mnt/\xe6\xa8\xa1\xe5\x9e\x8b": "/mnt/模型",
    rb"/mnt/my\040models": "/mnt/my models",
    rb"/mnt/tab\011and\012newline": "/mnt/tab\tand\nnewline",
    rb"/mnt/back\134slash": "/mnt/back\\slash",
    rb"/mnt/no\134040escape": "/mnt/no\\040escape",
    b"/mnt/carriage\rreturn": "/mnt/carriage\rreturn",
    "/mnt/line\u2028separator".encode(): "/mnt/line\u2028separator",
    b"/mnt/latin-1-\xe9": os.fsdecode(b"/mnt/latin-1-\xe9"),
}


@pytest.mark.parametrize(("written", "meant"), AWKWARD.items(), ids=map(repr, AWKWARD.values()))
def test_a_mountpoint_of_any_name_is_understood(tmp_path: Path, written: bytes, meant: str) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"36 22 0:53 / " + written + b" rw,nosuid shared:1 master:2 - fuse.ossfs-py "
        rb"bucket:my\040models rw,user_id=7,group_id=0"
        b"\n"
    )
    first, second = read_mount_table(table)
    assert (str(first.mountpoint), first.is_fuse, first.owner) == ("/", False, None)
    assert str(second.mountpoint) == meant
    assert (second.device, second.source) == ("0:53", "bucket:my models")
    assert (second.is_fuse, second.owner) == (True, 7)


def test_a_line_without_source_and_options_is_understood(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"22 1 0:5 / /proc rw - proc\n")
    (entry,) = read_mount_table(table)
    assert (entry.filesystem_type, entry.source, entry.options) == ("proc", "", "")
