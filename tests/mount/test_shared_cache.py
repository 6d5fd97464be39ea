"""Mounts that share blocks through memcached: what the bucket sends, and what a program sees."""

import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ossfs_py.control.client import ControlClient, mount_of
from ossfs_py.errors import EnvironmentProblemError
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.memcached import Memcached
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
SIZE = 20 * MIB + 999
CONTENT = random.Random(7).randbytes(SIZE)


@pytest.fixture
def node() -> Iterator[Memcached]:
    with Memcached() as one:
        yield one


@pytest.fixture
def model(seaweed: SeaweedServer, bucket: str, tmp_path: Path) -> str:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    seaweed.put_file(bucket, "model.safetensors", source)
    return "model.safetensors"


def metrics(mount: Mount) -> dict[str, float]:
    """The shared cache's metrics by name and label."""
    with ControlClient.of(mount_of(mount.path)[0]) as client:
        told = client.call("stats")["metrics"]
    return {
        "/".join([sample["name"], *sample["labels"].values()]): sample["value"]
        for name, family in told.items()
        if "shared_cache" in name
        for sample in family["samples"]
    }


def until_up(mount: Mount, nodes: int = 1) -> Mount:
    """On a busy machine a mount answers before it has found its nodes."""
    deadline = time.monotonic() + 30
    while metrics(mount)["ossfs_shared_cache_nodes/up"] < nodes:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return mount


def test_the_next_mounts_need_nothing_from_the_bucket(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    model: str,
    node: Memcached,
    data_path: str,
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the group\n")
    secret.chmod(0o600)

    def start() -> Mount:
        return until_up(
            mount(
                bucket,
                endpoint=proxy.endpoint,
                data_path=data_path,
                cache_dir=tmp_path / f"cache-{os.urandom(4).hex()}",
                shared_cache=node.address,
                shared_cache_secret=secret,
                shared_cache_timeout="20s",
            )
        )

    first = start()
    assert (first.path / model).read_bytes() == CONTENT
    assert first.unmount() == 0
    proxy.reset()
    second = start()
    assert (second.path / model).read_bytes() == CONTENT
    # One byte says that this mount may read what others leave in a cache directory.
    assert proxy.bytes_served() <= (1 if data_path == "cache" else 0)
    told = metrics(second)
    assert told["ossfs_shared_cache_blocks_total/hit"] == 21
    assert told["ossfs_shared_cache_blocks_total/won"] == 0
    assert told[f"ossfs_shared_cache_received_bytes_total/{node.address}"] == SIZE
    assert told["ossfs_shared_cache_nodes/up"] == 1
    assert "Shared cache" in ossfs("stats", str(second.path), "--once", environment={}).out


def test_what_one_mount_wrote_another_reads_without_the_bucket(
    mount: MountFactory, proxy: Proxy, bucket: str, node: Memcached
) -> None:
    shared = {"endpoint": proxy.endpoint, "shared_cache": node.address}
    patient = {**shared, "shared_cache_timeout": "20s"}
    writer = until_up(mount(bucket, data_path="temp", **patient))
    (writer.path / "checkpoint").write_bytes(CONTENT)
    assert writer.unmount() == 0
    proxy.reset()
    reader = until_up(mount(bucket, data_path="direct", **patient))
    assert (reader.path / "checkpoint").read_bytes() == CONTENT
    assert proxy.bytes_served() == 0


def test_nodes_that_die_or_hang_under_a_reader_are_not_noticed_by_it(
    mount: MountFactory, proxy: Proxy, bucket: str, model: str, node: Memcached
) -> None:
    with Memcached() as other:
        nodes = f"{node.address},{other.address}"
        mounted = mount(bucket, endpoint=proxy.endpoint, data_path="direct", shared_cache=nodes)
        with (mounted.path / model).open("rb", buffering=0) as file:
            got = [file.read(MIB)]
            node.kill()
            got += [file.read(MIB) for _ in range(4)]
            other.freeze()
            while data := file.read(MIB):
                got.append(data)
        other.thaw()
        assert b"".join(got) == CONTENT
        assert proxy.bytes_served(model) == SIZE
        told = metrics(mounted)
        assert told["ossfs_shared_cache_nodes/up"] + told["ossfs_shared_cache_nodes/down"] == 2


def warm_up(mount: Mount, path: str) -> dict[str, Any]:
    with ControlClient.of(mount_of(mount.path)[0]) as client:
        return client.call("shared.warm-up", {"paths": [path]})


def checked(mount: Mount) -> tuple[int, int]:
    """The exit code, and how many bytes the nodes have."""
    done = ossfs("warmup", "--shared", "--check", "--json", str(mount.path), environment={})
    return done.code, json.loads(done.out)["cached_bytes"]


def test_two_that_warm_up_at_once_make_the_bucket_send_each_byte_once_also_after_a_node_died(
    mount: MountFactory, proxy: Proxy, bucket: str, model: str, node: Memcached
) -> None:
    with Memcached() as other:
        mounts = [
            until_up(
                mount(
                    bucket,
                    endpoint=proxy.endpoint,
                    data_path="direct",
                    shared_cache=f"{node.address},{other.address}",
                    shared_cache_timeout="20s",
                ),
                nodes=2,
            )
            for _ in range(2)
        ]

        def at_once() -> int:
            with ThreadPoolExecutor(2) as pool:
                told = list(pool.map(warm_up, mounts, [model] * 2))
            for one in told:
                assert (one["files_done"], one["bytes_done"], one["missing"]) == (1, SIZE, [])
            return sum(one["fetched_bytes"] for one in told)

        assert at_once() == proxy.bytes_served() == SIZE
        assert checked(mounts[1]) == (0, SIZE)
        other.kill()
        code, left = checked(mounts[1])
        assert code == (0 if left == SIZE else 1)  # chance says what each node has
        proxy.reset()
        assert at_once() == proxy.bytes_served() == SIZE - left
        assert (mounts[0].path / model).read_bytes() == CONTENT
        assert proxy.bytes_served() == SIZE - left


def test_a_warm_up_of_more_than_the_nodes_hold_is_told_before_and_after(
    mount: MountFactory, bucket: str, model: str
) -> None:
    with Memcached("-m", "16", "-I", "4m") as small:
        mounted = until_up(
            mount(
                bucket,
                data_path="direct",
                shared_cache=small.address,
                shared_cache_timeout="20s",
            )
        )
        done = ossfs("warmup", "--shared", str(mounted.path), environment={})
        warning, told = done.err.splitlines()
        assert warning == (
            f"ossfs-py: warning: 20.0 MiB do not fit into the shared cache of {mounted.path}"
            " (14.5 MiB): the files that are fetched first will be evicted again (see memcached's"
            " option -m)"
        )
        assert told.startswith(f"ossfs-py: {mounted.path}/{model}: ")
        assert done.code == 1
        small.kill()
        (missing,) = warm_up(mounted, model)["missing"]
        assert missing["reason"] == "no node of the shared cache answers"
        done = ossfs("warmup", "--shared", str(mounted.path), environment={})
        assert done.code == 1
        assert done.sentence == "no node of the shared cache answers: see ossfs-py doctor"


def test_without_the_option_there_is_nothing_of_it(
    mount: MountFactory, bucket: str, model: str
) -> None:
    mounted = mount(bucket, data_path="direct")
    assert (mounted.path / model).read_bytes() == CONTENT
    assert metrics(mounted) == {}
    threads = Path(f"/proc/{mounted.pid}/task").iterdir()
    assert not [each for each in threads if "sharing" in (each / "comm").read_text()]
    with pytest.raises(EnvironmentProblemError, match=r"mount with --shared-cache to have one"):
        warm_up(mounted, model)


def test_a_secret_that_others_can_read_is_refused(
    bucket: str, tmp_path: Path, seaweed: SeaweedServer
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the group\n")
    secret.chmod(0o644)
    point = tmp_path / "mountpoint"
    point.mkdir()
    options = ["--shared-cache=127.0.0.1:1", f"--shared-cache-secret={secret}"]
    done = ossfs(
        *("mount", bucket, str(point), f"--endpoint={seaweed.endpoint}", "--foreground"),
        *options,
        environment=seaweed.environment,
    )
    assert done.code == 1
    assert "can be read by others (mode 0644): run chmod 600" in done.err
