"""``podman kube play`` of each manifest, and the replacement of a node's pod under its readers."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from minio import Minio

from tests.containers.engine import Engine
from tests.containers.pods import MANIFESTS, Document, Surroundings, played, playing
from tests.support.mounting import is_mounted
from tests.support.seaweed import SeaweedServer

OF_NAME = {path.stem: path for path in MANIFESTS}
DAEMONSET, SIDECAR = OF_NAME["daemonset"], OF_NAME["sidecar"]


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


def test_the_pod_of_a_node_and_its_reader_play(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    minio_client.put_object(here.bucket, "f", io.BytesIO(b"hello"), 5)
    of = documents(DAEMONSET, here)
    node, reader = of["Pod"]
    with playing(engine, *of["ConfigMap"], node, work=here.work) as (daemon,):
        assert "error" not in daemon.logs().lower()
        # Its init container waits for the mount.
        with playing(engine, reader, work=here.work) as (program,):
            assert program.exec("cat", "/mnt/models/f") == "hello"
            assert daemon.health() == ""
        assert daemon.stop() == 0
    assert not is_mounted(here.shared / "models")


def test_the_pod_with_a_sidecar_plays_and_what_it_writes_is_stored(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    of = documents(SIDECAR, here)
    with playing(engine, *of["PersistentVolumeClaim"], *of["Pod"], work=here.work) as containers:
        program, sidecar = containers
        sidecar.wait_healthy()
        program.exec("sh", "-c", "echo hello >/mnt/models/f")
        assert sidecar.stop() == 0
    answer = minio_client.get_object(here.bucket, "f")
    assert answer.read() == b"hello\n"
    answer.close()
    answer.release_conn()


# Reads an open file, nothing of which the kernel remembers, and the file opened anew.
READER = """
import os, sys, time
path, end = sys.argv[1:]
held = open(path, 'rb')
began, told = time.monotonic(), None
print('reading', flush=True)
while not os.path.exists(end):
    said = []
    def from_the_mount():
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(held.fileno(), 5, 0)
    for read in (from_the_mount, lambda: open(path, 'rb').read(5)):
        try:
            said.append('right' if read() == b'hello' else 'WRONG')
        except OSError as exc:
            said.append(exc.strerror)
    if said != told:
        print(f'{time.monotonic() - began:.2f}', *said, sep='; ', flush=True)
    told = said
    time.sleep(0.005)
"""


def test_a_reader_of_a_node_whose_pod_is_replaced_sees_the_files_again_by_name(
    engine: Engine, here: Surroundings, minio_client: Minio
) -> None:
    minio_client.put_object(here.bucket, "f", io.BytesIO(b"hello"), 5)
    of = documents(DAEMONSET, here)
    node = of["Pod"][0]
    end = here.work / "end"
    command = [sys.executable, "-c", READER, here.shared / "models/f", end]
    with playing(engine, *of["ConfigMap"], node, work=here.work) as (old,):
        old.wait_healthy()
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        time.sleep(0.5)  # reads that are right come first; nothing depends on how many
        began = time.monotonic()
        old.stop()
    with playing(engine, *of["ConfigMap"], node, work=here.work) as (new,):
        new.wait_healthy()
        took = time.monotonic() - began
        end.touch()
        told = [line.split("; ") for line in reader.communicate(timeout=60)[0].splitlines()]
        assert new.stop() == 0
    print(f"\nreplaced in {took:.2f} s; what the reader saw:", *told, sep="\n")  # noqa: T201
    assert told[0][1:] == ["right", "right"]
    # What was open stays lost; opened anew it is there.
    assert told[-1][1:] == ["Transport endpoint is not connected", "right"]
    assert not any("WRONG" in line for line in told)
