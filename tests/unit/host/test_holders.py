"""Who has a copy of a mount, on a machine made of files."""

from pathlib import Path

from ossfs_py.host.holders import holders_of

LINE = "36 22 {device} / {where} rw - fuse.ossfs-py models rw,user_id=0\n"


def process(root: Path, name: str, namespace: str, table: str) -> None:
    directory = root / name
    (directory / "ns").mkdir(parents=True)
    (directory / "ns/mnt").symlink_to(f"mnt:[{namespace}]")
    (directory / "mountinfo").write_text(table)
    (directory / "comm").write_text("train.py\n")


def test_each_other_namespace_that_has_the_mount_is_named_once(tmp_path: Path) -> None:
    copy = LINE.format(device="0:53", where="/models")
    process(tmp_path, "self", "1", "")
    process(tmp_path, "100", "1", "")  # of this namespace
    process(tmp_path, "200", "2", copy)  # the daemon, in one of its own
    process(tmp_path, "300", "3", copy)
    process(tmp_path, "301", "3", copy)
    process(tmp_path, "400", "4", LINE.format(device="0:54", where="/models"))
    (tmp_path / "500").mkdir()  # ended meanwhile, or another user's
    assert holders_of("0:53", 200, tmp_path) == ["train.py (process 300), which has it at /models"]


def test_a_second_mount_in_this_namespace_is_named(tmp_path: Path) -> None:
    process(tmp_path, "self", "1", LINE.format(device="0:53", where="/srv/also"))
    assert holders_of("0:53", 200, tmp_path) == ["a second mount at /srv/also"]
