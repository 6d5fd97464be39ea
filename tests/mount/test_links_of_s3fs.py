"""Symbolic links of s3fs: small files to LIST, links to whoever sees their metadata."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.patience import wait_until
from tests.support.proxy import Proxy
from tests.support.workplace import Workplace

LINK = {"mode": str(stat.S_IFLNK | 0o777), "uid": "0", "gid": "0"}
BLOB = b'{"model_type": "llama", "hidden_size": 4096}'


def linked(place: Workplace, name: str, target: bytes, blob: bytes = BLOB) -> Path:
    """A link that s3fs made beside ``blob``, as a listing shows it."""
    place.put("hub/blobs/blob", blob)
    place.put(f"hub/{name}", target, LINK)
    shown = place.run("ls", "-lR", "hub")
    assert f"{len(target)} " in shown
    return place.path / "hub" / name


@pytest.mark.parametrize("blob", [BLOB, b"{}", b"", b"x" * 300_000], ids=len)
def test_a_link_that_was_listed_as_a_file_is_read_as_what_it_leads_to(
    place: Workplace, blob: bytes
) -> None:
    link = linked(place, "config.json", b"blobs/blob", blob)
    assert not link.is_symlink()
    with link.open("rb", buffering=0) as opened:
        assert b"".join(iter(lambda: opened.read(1 << 20), b"")) == blob
        assert os.fstat(opened.fileno()).st_size == len(blob)
        assert os.pread(opened.fileno(), 10, 0) == blob[:10]
    wait_until(link.is_symlink)  # the kernel is told of names by a thread
    assert str(link.readlink()) == "blobs/blob"
    assert link.read_bytes() == blob
    assert place.run("cat", "hub/config.json").encode() == blob


@pytest.mark.parametrize("blob", [BLOB, b"x" * 300_000], ids=len)
def test_a_link_that_was_listed_as_a_file_is_copied_as_what_it_leads_to(
    place: Workplace, blob: bytes
) -> None:
    linked(place, "config.json", b"blobs/blob", blob)
    place.run("cp", "hub/config.json", "copy")
    assert place.stored("copy") == blob


def test_what_is_written_through_a_link_goes_to_its_target_and_the_link_stays(
    place: Workplace,
) -> None:
    place.put("hub/appended", b"blobs/blob", LINK)
    linked(place, "written", b"blobs/blob")
    (place.path / "hub/written").write_bytes(b"{}\n")
    assert place.stored("hub/blobs/blob") == b"{}\n"
    place.run("sh", "-c", "echo more >> hub/appended")
    assert place.stored("hub/blobs/blob") == b"{}\nmore\n"
    for name in ("written", "appended"):
        assert place.stored(f"hub/{name}") == b"blobs/blob"
        assert str((place.path / "hub" / name).readlink()) == "blobs/blob"
    assert {path.name for path in (place.path / "hub").iterdir()} == {
        "written",
        "appended",
        "blobs",
    }


def test_a_link_that_was_seen_to_be_one_after_it_was_opened_is_followed(
    place: Workplace,
) -> None:
    link = linked(place, "config.json", b"blobs/blob")
    with link.open("rb", buffering=0) as opened:
        assert ossfs("info", link, environment={}).code == 0  # it asks the store
        assert opened.read(1000) == BLOB


def test_links_to_links_are_followed(place: Workplace) -> None:
    place.put("hub/second", b"../hub/./blobs/blob", LINK)
    place.put("hub/of-ossfs", b"", {"symlink-target": "header:6:second"})
    assert linked(place, "first", b"of-ossfs").read_bytes() == BLOB


@pytest.mark.parametrize("target", [b"nothing", b"/etc/hostname", b"../../../out", b"itself"])
def test_a_link_that_leads_to_no_file_of_the_mount_is_never_read_as_its_target(
    place: Workplace, target: bytes
) -> None:
    link = linked(place, "itself", target)
    with refused(errno.ESTALE):
        link.read_bytes()
    wait_until(link.is_symlink)  # the kernel is told of names by a thread
    assert str(link.readlink()) == target.decode()


def test_small_files_are_what_they_were(place: Workplace) -> None:
    for name, content in {"empty": b"", "one": b"1", "page": b"p" * 4096}.items():
        place.put(name, content, {"mode": str(stat.S_IFREG | 0o600)})
    place.run("ls", "-l")
    assert [(place.path / name).read_bytes() for name in ("empty", "one", "page")] == [
        b"",
        b"1",
        b"p" * 4096,
    ]


def test_looking_for_links_costs_no_request(
    mount: MountFactory, proxy: Proxy, bucket: str, data_path: str, minio_client: Minio
) -> None:
    place = _beside(mount(bucket, data_path=data_path, endpoint=proxy.endpoint), minio_client)
    for number in range(20):
        place.put(f"many/{number}", b"%d" % number)
    place.run("ls", "-l", "many")
    proxy.reset()
    for number in (3, 17):
        opened = os.open(place.path / f"many/{number}", os.O_RDONLY)
        os.close(opened)
    assert not proxy.counts()
    assert (place.path / "many/3").read_bytes() == b"3"
    assert proxy.counts() == {"GetObject": 1}


def test_a_link_in_the_disk_cache_is_no_file_to_the_next_mount(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path="cache")
    place = _beside(mounted, minio_client)
    link = linked(place, "config.json", b"blobs/blob")
    for _ in range(2):
        assert link.read_bytes() == BLOB
        assert mounted.unmount() == 0
        mounted.start()
        place.run("ls", "-l", "hub")


def test_nobody_reads_through_a_link_what_is_not_theirs(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    """The kernel has looked at the modes of the path to the link only."""
    mounted = mount(bucket, data_path=data_path, allow_other=True)
    place = _beside(mounted, minio_client)
    link = linked(place, "secret", b"blobs/blob")
    (place.path / "hub/blobs/blob").chmod(0o600)
    for directory in mounted.path.parents:
        if directory.stat().st_mode & 0o11 != 0o11:
            directory.chmod(0o711)
    script = f"import os; os.setgid(65534); os.setuid(65534); print(open({str(link)!r}).read())"
    tried = subprocess.run(
        ["/usr/bin/python3", "-c", script], check=False, capture_output=True, text=True
    )
    assert tried.returncode
    assert "llama" not in tried.stdout
    assert link.read_bytes() == BLOB


def _beside(mounted: Mount, client: Minio) -> Workplace:
    return Workplace.make(mounted, client, mounted.path)
