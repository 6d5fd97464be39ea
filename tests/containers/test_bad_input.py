"""What people give a container wrongly: it works, or one sentence says what is missing."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.containers.engine import Engine
from tests.support.mounting import is_mounted

NO_CAPABILITY = (
    "root may not mount here: the capability CAP_SYS_ADMIN is missing"
    " (start the container with --cap-add SYS_ADMIN)"
)
NO_DEVICE = (
    "/dev/fuse is missing: load the kernel module (modprobe fuse), or start the container with"
    " --device /dev/fuse --cap-add SYS_ADMIN"
)
ODD = "-a\nb'\"$`:;,%s*?[x]{}#~ \\ é\u202e "
STATE = "/var/lib/ossfs-py"
ADVICE = f"(of a volume, name a directory in it, such as {STATE}/ossfs-py, or chown it)"


def refused(engine: Engine, options: Sequence[str], environment: dict[str, str]) -> str:
    """The one sentence of a container that ends with 1."""
    with engine.container(options, environment=environment) as container:
        assert container.exit_code() == 1
        (line,) = container.logs().splitlines()
    return line.removeprefix("ossfs-py: ")


def works(
    engine: Engine, options: Sequence[str], environment: dict[str, str], mountpoint: Path
) -> str:
    """The log of a container that mounts, takes a file, gives it back and ends well."""
    with engine.container(options, environment=environment) as container:
        container.wait_healthy()
        (mountpoint / "f").write_bytes(b"x" * 100_000)
        assert (mountpoint / "f").read_bytes() == b"x" * 100_000
        assert container.stop() == 0
        log = container.logs()
    assert not is_mounted(mountpoint)
    return log


def without(options: list[str], name: str) -> list[str]:
    """``options`` but for the option of that name and its value."""
    at = options.index(name)
    return options[:at] + options[at + 2 :]


def test_what_a_mount_cannot_do_without_is_told(
    engine: Engine, options: list[str], environment: dict[str, str]
) -> None:
    assert refused(engine, without(options, "--cap-add"), environment) == NO_CAPABILITY
    assert refused(engine, without(options, "--device"), environment) == NO_DEVICE


# Each with the engine's own seccomp filter.
@pytest.mark.parametrize(
    "more",
    [
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "no-new-privileges", "--user", "10001"],
        ["--read-only", "--tmpfs", f"{STATE}:mode=700"],
        ["--user", "12345", "--env", "OSSFS_PY_STATE_DIR=/tmp/state"],  # without a name
    ],
    ids=" ".join,
)
def test_it_works_in_a_container_that_may_do_little(
    engine: Engine,
    shared: Path,
    options: list[str],
    environment: dict[str, str],
    more: list[str],
) -> None:
    (shared / "models").mkdir()
    (shared / "models").chmod(0o777)
    works(engine, [*options, *more], environment, shared / "models")


def test_too_little_memory_is_told_and_works_while_it_can(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    log = works(engine, [*options, "--memory", "64m"], environment, shared / "models")
    assert "has 64MiB of memory and may need 134MiB" in log


def test_a_mountpoint_with_every_odd_character(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    environment["OSSFS_PY_MOUNTPOINT"] = f"/mnt/shared/{ODD}"
    works(engine, options, environment, shared / ODD)


def test_a_mountpoint_that_is_a_link(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    (shared / "real").mkdir()
    (shared / "link").symlink_to("real")
    environment["OSSFS_PY_MOUNTPOINT"] = "/mnt/shared/link"
    works(engine, options, environment, shared / "real")


def test_a_volume_for_the_state_is_used_or_refused_with_what_to_do(
    engine: Engine,
    shared: Path,
    options: list[str],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    more = [*options, "--volume", f"{volume}:{STATE}"]
    for owner, mode, sentence in (
        (1234, 0o700, f"--state-dir: {STATE} belongs to another user {ADVICE}"),
        (10001, 0o777, f"--state-dir: {STATE} belongs to another user {ADVICE}"),
        (
            0,
            0o777,
            f"--state-dir: others can write to {STATE}; close it with chmod go-w {ADVICE}",
        ),
    ):
        os.chown(volume, owner, owner)
        volume.chmod(mode)
        assert refused(engine, more, environment) == sentence
        # What it advises works, whoever owns the volume.
        below = {**environment, "OSSFS_PY_STATE_DIR": f"{STATE}/ossfs-py"}
        works(engine, more, below, shared / "models")
        (volume / "ossfs-py").rename(tmp_path / f"state-{owner}-{mode}")


def test_a_full_volume_for_the_state_is_told(
    engine: Engine, options: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    size = "size=64k,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", volume], check=True)
    try:
        (volume / "full").write_bytes(bytes(16 * os.sysconf("SC_PAGE_SIZE")))
        more = [*options, "--volume", f"{volume}:{STATE}"]
        assert refused(engine, more, environment) == f"--state-dir: {STATE} is full"
    finally:
        subprocess.run(["umount", volume], check=True)


def test_a_second_container_on_one_mountpoint_is_refused_and_the_first_lives_on(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    with engine.container(options, environment=environment) as first:
        first.wait_healthy()
        told = refused(engine, options, environment)
        assert told.startswith("the mountpoint /mnt/shared/models is busy: ")
        assert first.health() == ""
        (shared / "models/f").write_text("x")
        assert first.stop() == 0


def test_sigterm_at_any_moment_of_the_start_ends_it_and_leaves_no_mount(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    for tenths in range(20):
        with engine.container(options, environment=environment) as container:
            time.sleep(tenths / 10)
            container.signal("TERM")
            assert container.exit_code() in (0, 143), container.logs()
        assert not is_mounted(shared / "models")
