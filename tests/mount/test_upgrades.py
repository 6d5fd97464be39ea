"""``ossfs-py upgrade``: another daemon takes over a mount, and its programs notice nothing. One
that cannot leaves everything to the daemon that serves."""

import io
import mmap
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.log_level import log_level
from ossfs_py.cli.upgrade import upgrade as upgrade_command
from ossfs_py.errors import EnvironmentProblemError, UsageError
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.holding import wait_for
from tests.support.kept import KEPT, daemon_of
from tests.support.mounting import Mount, Option

MIB = 1024**2
CHANGES = ("--metadata-ttl=5m", "--log-level=debug", "--retry-budget=9s")


def upgrade(one: Mount, *options: str) -> str:
    """What the command says.

    Raises:
        UserError: why it cannot be done.
    """
    done = CliRunner().invoke(upgrade_command, [str(one.path), *options])
    if done.exception is not None:
        raise done.exception
    return done.output


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
    seen = {daemon_of(one.path)}
    with (
        (one.path / "model").open("rb", buffering=0) as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        read = file.read(MIB)
        for number, option in enumerate(CHANGES):
            # More often than --restarts allows deaths: an upgrade is none.
            told = upgrade(one, option)
            serving = daemon_of(one.path)
            assert told.rstrip().endswith(f"serves it, as process {serving}")
            seen.add(serving)
            at = 5 * MIB - number * MIB
            assert mapped[at : at + 70_000] == content[at : at + 70_000]
            read += file.read(MIB)
        assert read + file.read() == content
    assert len(seen) == 4
    # What earlier ones were given lasts.
    shown = CliRunner().invoke(log_level, [str(one.path)])
    assert shown.output.strip() == "debug"
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
    serving = daemon_of(one.path)

    def refused(*options: str) -> str:
        start = "the running daemon continues, because the new one cannot take over: "
        with pytest.raises(EnvironmentProblemError, match=start) as why:
            upgrade(one, *options)
        assert daemon_of(one.path) == serving
        assert (one.path / "file").read_bytes() == b"bytes"
        return str(why.value).removeprefix(start)

    assert refused("--concurrency=0") == "--concurrency: must be at least 1"
    config.write_text("allow-other = true\nnonempty = true")
    assert refused() == (
        "--allow-other and --nonempty cannot change while it is mounted: unmount, and mount again"
    )
    config.write_text("")
    broken = library / "pyfuse3.py"
    broken.write_text("raise ModuleNotFoundError('No module named pyfuse3')")
    assert refused() == "ModuleNotFoundError: No module named pyfuse3"
    broken.unlink()
    upgrade(one)
    assert daemon_of(one.path) != serving
    assert (one.path / "file").read_bytes() == b"bytes"


def test_what_cannot_change_is_refused_and_so_is_a_mount_without_a_keeper(
    mount: MountFactory, bucket: str
) -> None:
    one = mount(bucket, data_path="direct", read_only=True)
    options = ("--endpoint=http://elsewhere", "--data-path=temp", "--concurrency=4")
    with pytest.raises(UsageError) as why:
        upgrade(one, *options)
    assert str(why.value) == (
        "--endpoint and --data-path cannot change while it is mounted: unmount, and mount again"
    )
    outcome = ossfs("upgrade", one.path, environment={})
    assert outcome.code == 1
    assert outcome.sentence == (
        "the mount was made without --restarts or --keeper, so its daemon cannot be replaced:"
        " unmount, and mount again"
    )
