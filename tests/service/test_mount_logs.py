"""The logs of a real mount: errors that name everything, levels at run time, the access log."""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.service.booted import wait_until
from tests.support.commands import ossfs
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.proxy import Proxy


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_failing_read_names_everything_in_the_log(
    mount: MountFactory, bucket: str, store: Proxy, minio_client: Minio, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Written by another client: what a mount has just written it reads back from memory.
    minio_client.put_object(bucket, "d/file", BytesIO(b"hello"), 5)
    mounted = mount(
        bucket,
        endpoint=store.endpoint,
        data_path="direct",
        retry_budget="100ms",
        log_format="json",
        log_file=log,
    )
    store.faults.append(Fault(operation="GetObject", times=None, status=503))
    with pytest.raises(OSError, match="Input/output error"):
        (mounted.path / "d/file").read_text()
    # The kernel asks again for the page after its readahead failed.
    *_, entry = [line for line in lines(log) if line["level"] == "error"]
    assert entry["logger"] == "ossfs_py.fuse.adapter"
    assert (entry["operation"], entry["path"], entry["key"]) == ("read", "/d/file", "d/file")
    assert entry["attempts"] >= 1
    assert "ossfs-py doctor" in entry["advice"]
    assert "GetObject 'd/file'" in entry["message"]
    assert mounted.unmount() == 0


def level(mounted: Mount, *more: str) -> str:
    outcome = ossfs("log-level", mounted.path, *more, environment={})
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out.strip()


def test_levels_are_changed_while_the_mount_runs(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket, data_path="direct", log_level="error")
    assert level(mounted) == "error"
    assert level(mounted, "fuse=debug") == "error,fuse=debug"
    assert not (mounted.path / "nothing").exists()
    assert "DEBUG ossfs_py.fuse.adapter: lookup" in mounted.log
    assert level(mounted, "warning") == "warning"
    outcome = ossfs("log-level", mounted.path, "loud", environment={})
    assert outcome.code == 2
    assert outcome.sentence == "LEVEL: 'loud' is none of debug, info, warning, error"


def test_the_access_log_has_a_line_for_each_call(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    access = tmp_path / "access"
    mounted = mount(bucket, data_path="direct", access_log=access)
    (mounted.path / "d").mkdir()
    (mounted.path / "d/a").write_text("hello")
    assert (mounted.path / "d/a").read_text() == "hello"
    (mounted.path / "d/a").rename(mounted.path / "b")
    with pytest.raises(FileNotFoundError):
        (mounted.path / "nothing").read_text()
    assert mounted.unmount() == 0

    def called(operation: str, path: str) -> dict[str, Any]:
        return next(
            line for line in lines(access) if (line["operation"], line["path"]) == (operation, path)
        )

    assert called("mkdir", "/d")["pid"] == os.getpid()
    assert called("write", "/d/a")["size"] == 5
    assert called("read", "/d/a")["bytes"] == 5
    assert called("rename", "/d/a")["new_path"] == "/b"
    assert called("lookup", "/nothing")["result"] == "ENOENT"
    assert called("release", "/d/a")["microseconds"] >= 0
    assert {line["result"] for line in lines(access)} <= {"ok", "ENOENT", "ENODATA"}


def test_logs_that_were_moved_away_are_opened_anew_at_sighup(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    log, access = tmp_path / "log", tmp_path / "access"
    mounted = mount(bucket, data_path="direct", log_file=log, access_log=access)
    for path in (log, access):
        path.rename(f"{path}.1")
    os.kill(mounted.pid, 1)
    wait_until(lambda: log.exists() and "were read again" in log.read_text())
    mounted.path.stat()
    assert list(mounted.path.iterdir()) == []
    assert "readdir" in access.read_text()


@pytest.mark.parametrize("option", ["--log-file", "--access-log"])
def test_a_log_that_cannot_be_written_is_told_before_anything_is_mounted(
    option: str, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere/log"
    outcome = ossfs("mount", "b", tmp_path / "mnt", option, missing, "--foreground", environment={})
    name = option.removeprefix("--").replace("log-", "log ").replace("access-", "access ")
    assert outcome.code == 1
    assert outcome.sentence == f"cannot write the {name} {missing}: No such file or directory"
