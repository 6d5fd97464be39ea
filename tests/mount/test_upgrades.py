"""``ossfs-py upgrade``: another daemon takes over a mount, and its programs notice nothing. One
that cannot leaves everything to the daemon that serves."""

import io
import mmap
import os
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.running import find_daemon
from tests.conftest import MountFactory
from tests.support.commands import Outcome, ossfs
from tests.support.holding import wait_for
from tests.support.mounting import Mount, Option

MIB = 1024**2
KEPT = "another daemon goes on with the mount if this one dies"


def upgrade(one: Mount, *options: str) -> Outcome:
    return ossfs("upgrade", one.path, *options, environment={})


def daemon_of(one: Mount) -> int:
    """The process id of the daemon that serves a mount just now."""
    daemon = find_daemon(one.path)
    assert daemon is not None
    daemon.close()
    return daemon.mount.pid


def kept(mount: MountFactory, bucket: str, **options: Option) -> Mount:
    one = mount(bucket, data_path="direct", read_only=True, restarts=1, **options)
    wait_for(lambda: KEPT in one.log)
    return one


def test_readers_and_mappings_go_on_over_upgrades(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    content = os.urandom(6 * MIB)
    minio_client.put_object(bucket, "model", io.BytesIO(content), len(content))
    one = kept(mount, bucket)
    seen = {daemon_of(one)}
    with (
        (one.path / "model").open("rb", buffering=0) as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        read = file.read(MIB)
        for number in range(3):
            # More often than --restarts allows deaths: an upgrade is none.
            outcome = upgrade(one, f"--metadata-ttl={number + 1}")
            assert outcome.code == 0, outcome.err + one.log
            serving = daemon_of(one)
            assert outcome.out.rstrip().endswith(f"serves it, as process {serving}")
            seen.add(serving)
            at = 5 * MIB - number * MIB
            assert mapped[at : at + 70_000] == content[at : at + 70_000]
            read += file.read(MIB)
        assert read + file.read() == content
    assert len(seen) == 4
    # What an upgrade was given lasts, also when the daemon dies.
    assert upgrade(one, "--log-level=debug").code == 0
    os.kill(daemon_of(one), 9)
    wait_for(lambda: one.log.count(KEPT) == 6)
    shown = ossfs("log-level", one.path, environment={})
    assert shown.out.strip() == "debug"
    assert one.unmount() == 0, one.log


def test_a_new_daemon_that_cannot_start_leaves_the_mount_to_the_old_one(
    mount: MountFactory,
    bucket: str,
    minio_client: Minio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    library, config = tmp_path / "lib", tmp_path / "config.toml"
    library.mkdir()
    config.write_text("")
    monkeypatch.setenv("PYTHONPATH", str(library))
    one = kept(mount, bucket, config=config, metadata_ttl=0)
    serving = daemon_of(one)

    def refused(*options: str) -> str:
        outcome = upgrade(one, *options)
        assert outcome.code == 1, outcome
        assert daemon_of(one) == serving
        assert (one.path / "file").read_bytes() == b"bytes"
        start = "the running daemon goes on, as no other can: "
        assert outcome.sentence.startswith(start)
        return outcome.sentence.removeprefix(start)

    assert refused("--concurrency=0") == "--concurrency: must be at least 1"
    config.write_text("memory-limit = 'all'")
    assert refused().startswith(f"memory-limit in {config}: ")
    config.write_text("allow-other = true\nnonempty = true")
    assert refused() == (
        "--allow-other and --nonempty cannot change while it is mounted: unmount, and mount again"
    )
    config.write_text("")
    assert "cannot read" in refused(f"--credentials-file={tmp_path / 'none'}")
    # Missing from the beginning, and when the first imports are done.
    for module in ("click", "pyfuse3"):
        broken = library / f"{module}.py"
        broken.write_text(f"raise ModuleNotFoundError('No module named {module}')")
        assert refused() == f"ModuleNotFoundError: No module named {module}"
        broken.unlink()
    assert upgrade(one).code == 0, one.log
    assert daemon_of(one) != serving
    assert (one.path / "file").read_bytes() == b"bytes"


def test_what_cannot_change_is_refused_and_so_is_a_mount_without_a_keeper(
    mount: MountFactory, bucket: str
) -> None:
    one = mount(bucket, data_path="direct", read_only=True)
    outcome = upgrade(one, "--endpoint=http://elsewhere", "--data-path=temp", "--concurrency=4")
    assert outcome.code == 2
    assert outcome.sentence == (
        "--endpoint and --data-path cannot change while it is mounted: unmount, and mount again"
    )
    outcome = upgrade(one)
    assert outcome.code == 1
    assert outcome.sentence == (
        "the mount ends with its daemon, as it was mounted without --restarts: unmount, and mount"
        " again"
    )
