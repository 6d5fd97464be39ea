"""``podman kube play`` of each manifest, and the replacement of a node's pod under its readers."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from minio import Minio

from tests.containers.engine import Container, Engine
from tests.containers.pods import MANIFESTS, Document, Surroundings, played, playing
from tests.support.holding import wait_for
from tests.support.mounting import is_mounted
from tests.support.seaweed import SeaweedServer

OF_NAME = {path.stem: path for path in MANIFESTS}
DAEMONSET, SIDECAR, KEEPER = (OF_NAME[name] for name in ("daemonset", "sidecar", "keeper"))


@pytest.fixture
def here(tmp_path: Path, shared: Path, seaweed: SeaweedServer, bucket: str) -> Surroundings:
    keys = f"{seaweed.access_key}:{seaweed.secret_key}\n"
    assert shared == tmp_path / "shared"
    # The directory of the tests is not so large that the manifest's would fit.
    sizes = {"cache-size": '"64M"', "min-free": '"64M"', "metrics-address": '"127.0.0.1:0"'}
    return Surroundings(bucket, seaweed.endpoint, keys, tmp_path, sizes)


def documents(path: Path, here: Surroundings) -> dict[str, list[Document]]:
    """What podman plays of a manifest, by kind."""
    found: dict[str, list[Document]] = {}
    for document in yaml.safe_load_all(path.read_text()):
        if one := played(document, here):
            found.setdefault(one["kind"], []).append(one)
    return found


@contextlib.contextmanager
def node_keeper(engine: Engine, here: Surroundings) -> Iterator[Container]:
    """The pod that holds a node's mounts; in the end it gives up what it still has."""
    (pod,) = documents(KEEPER, here)["Pod"]
    with playing(engine, pod, work=here.work) as (keeper,):
        yield keeper


def test_the_pod_of_a_node_and_its_reader_play(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    minio_client.put_object(here.bucket, "f", io.BytesIO(b"hello"), 5)
    of = documents(DAEMONSET, here)
    node, reader = of["Pod"]
    with node_keeper(engine, here) as keeper:
        with playing(engine, *of["ConfigMap"], node, work=here.work) as (daemon,):
            assert "error" not in daemon.logs().lower()
            with playing(engine, reader, work=here.work) as (program, waiting):
                assert waiting.exit_code() == 0
                assert program.exec("cat", "/mnt/models/f") == "hello"
                assert daemon.health() == ""
            assert daemon.stop() == 0
        assert is_mounted(here.shared / "models")  # the next pod would go on with it
        assert keeper.stop() == 0
        assert "its keeper was told to end" in keeper.logs()
    assert not is_mounted(here.shared / "models")


# In the program's container: what it has open is read and written on over the replacement.
NEIGHBOUR = """
exec 3</mnt/models/old 4>/mnt/models/new
head -c 5 <&3; echo one >&4; touch /tmp/open
until [ -e /tmp/replaced ]; do sleep 0.05; done
cat <&3; echo two >&4
exec 4>&- && cat /mnt/models/new
"""


def test_a_sidecar_is_replaced_and_its_neighbour_notices_nothing(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    minio_client.put_object(here.bucket, "old", io.BytesIO(b"hello bucket\n"), 13)
    of = documents(SIDECAR, here)
    with playing(engine, *of["PersistentVolumeClaim"], *of["Pod"], work=here.work) as containers:
        program, keeper, sidecar = containers
        sidecar.wait_healthy()
        wait_for(lambda: "is kept" in keeper.logs())
        said: list[str] = []
        neighbour = threading.Thread(
            target=lambda: said.append(program.exec("sh", "-ec", NEIGHBOUR))
        )
        neighbour.start()
        wait_for(lambda: bool(program.exec("find", "/tmp/open", check=False)))
        assert sidecar.stop() == 0
        assert is_mounted(here.shared / "models")
        sidecar.start()
        sidecar.wait_healthy()
        program.exec("touch", "/tmp/replaced")
        neighbour.join(60)
        assert said == ["hello bucket\none\ntwo\n"]
        assert "its mount goes on with" in sidecar.logs()
        # As a kubelet ends a pod: the program, then the sidecars, the last one first.
        program.stop(0)  # its shell ignores SIGTERM
        sidecar.stop()
        keeper.stop()
        assert not is_mounted(here.shared / "models")
    answer = minio_client.get_object(here.bucket, "new")
    assert answer.read() == b"one\ntwo\n"
    answer.close()
    answer.release_conn()


# Reads an open file, nothing of which the kernel remembers, a mapped one, and one opened anew.
READER = """
import mmap, os, sys, time
path, end = sys.argv[1:]
held = open(path, 'rb')
mapped = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)
began, told, longest = time.monotonic(), None, 0.0
print('reading', flush=True)
def from_the_mount():
    os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(held.fileno(), 5, 0)
while not os.path.exists(end):
    said, asked = [], time.monotonic()
    for read in (from_the_mount, lambda: mapped[:5], lambda: open(path, 'rb').read(5)):
        try:
            said.append('right' if read() == b'hello' else 'WRONG')
        except OSError as exc:
            said.append(exc.strerror)
    longest = max(longest, time.monotonic() - asked)
    if said != told:
        print(f'{time.monotonic() - began:.2f}', *said, sep='; ', flush=True)
    told = said
    time.sleep(0.005)
print(f'{longest:.2f}', flush=True)
"""


def test_a_reader_of_a_node_whose_pod_is_replaced_notices_nothing_but_a_pause(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    minio_client.put_object(here.bucket, "f", io.BytesIO(b"hello"), 5)
    of = documents(DAEMONSET, here)
    node = of["Pod"][0]
    end = here.work / "end"
    command = [sys.executable, "-c", READER, here.shared / "models/f", end]
    with node_keeper(engine, here) as keeper:
        with playing(engine, *of["ConfigMap"], node, work=here.work) as (old,):
            old.wait_healthy()
            wait_for(lambda: "is kept" in keeper.logs())
            reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            began = time.monotonic()
            old.stop()
        with playing(engine, *of["ConfigMap"], node, work=here.work) as (new,):
            new.wait_healthy()
            took = time.monotonic() - began
            end.touch()
            *told, longest = reader.communicate(timeout=60)[0].splitlines()
            assert new.stop() == 0
        keeper.stop()
    load = os.getloadavg()[0]
    print(f"\nreplaced in {took:.2f} s, a read took {longest} s at most (load {load:.1f})")  # noqa: T201
    assert [line.partition("; ")[2] for line in told] == ["right; right; right"]
