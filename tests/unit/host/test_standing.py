"""What is at a mountpoint, from what the kernel's table and statvfs(2) say."""

import errno
import os
from pathlib import Path

import pytest

from ossfs_py.host import standing
from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, Machine
from ossfs_py.host.mounttable import MountEntry
from ossfs_py.host.standing import Standing, look_at

OURS = FILESYSTEM_TYPE


def machine_with(tmp_path: Path, *kinds: str) -> Machine:
    """One mount on the other, the last one in sight, at ``mnt``."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "".join(
            f"{number} 22 0:{number} / {tmp_path}/mnt rw shared:1 - {kind} models"
            f" rw,user_id={os.geteuid()}\n"
            for number, kind in enumerate(kinds, 36)
        )
    )
    return Machine(mount_table=table)


@pytest.mark.parametrize(
    ("kind", "answer", "found"),
    [
        (OURS, 0, Standing.SERVED_ELSEWHERE),  # alive, and no daemon is registered here
        (OURS, errno.ENOTCONN, Standing.DEAD),
        (OURS, errno.ECONNABORTED, Standing.DEAD),  # it went while it was asked
        (OURS, None, Standing.SILENT),
        (OURS, errno.EIO, Standing.SILENT),
        (OURS, errno.EACCES, Standing.HIDDEN),
        (OURS, standing._NOT_FOR_US, Standing.HIDDEN),
        ("fuse.sshfs", 0, Standing.FOREIGN),
        ("fuse.sshfs", None, Standing.FOREIGN),
        ("fuse.sshfs", errno.ENOTCONN, Standing.DEAD),
        ("ext4", errno.ENOTCONN, Standing.FOREIGN),  # not even asked
    ],
)
def test_a_mount_stands_as_the_kernel_answers(
    kind: str,
    answer: int | None,
    found: Standing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standing, "_asked", lambda *_: answer)
    seen = look_at(tmp_path / "mnt", machine_with(tmp_path, "ext4", kind))
    assert (seen.standing, seen.is_alive) == (found, found is Standing.SERVED_ELSEWHERE)
    assert seen.entry is not None
    assert seen.entry.filesystem_type == kind


def test_where_nothing_is_mounted_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_asked", lambda *_: pytest.fail("asked"))
    assert look_at(tmp_path / "mnt", machine_with(tmp_path)).standing is Standing.FREE


def test_a_mount_that_goes_away_while_it_is_asked_is_not_taken_for_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_with(tmp_path, OURS)

    def asked(*_: object) -> int:
        machine.mount_table.write_text("")
        return 0  # the directory below has answered

    monkeypatch.setattr(standing, "_asked", asked)
    assert look_at(tmp_path / "mnt", machine).standing is Standing.FREE


def test_the_question_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    anybodys = MountEntry(tmp_path, OURS, "models", "rw")
    assert standing._asked(tmp_path, anybodys, 60.0) == 0
    assert standing._asked(tmp_path / "none", anybodys, 60.0) == errno.ENOENT
    # A Python does not start that fast: it stands for a daemon that never answers.
    assert standing._asked(tmp_path, anybodys, 0.0001) is None
