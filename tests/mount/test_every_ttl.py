"""What other clients change, whatever the metadata TTL: nothing lost, nothing hidden."""

import errno
import os
import stat
from collections.abc import Iterator

import pytest

from tests.support.commands import ossfs
from tests.support.errnos import refused, refused_as
from tests.support.mounting import DATA_PATHS, Mount
from tests.support.patience import wait_until
from tests.support.seaweed import SeaweedServer
from tests.support.workplace import Workplace


@pytest.fixture(
    scope="module",
    params=[(path, ttl) for path in DATA_PATHS for ttl in ("0s", "1s", "60s")],
    ids="-".join,
)
def mounted(
    request: pytest.FixtureRequest,
    seaweed: SeaweedServer,
    module_bucket: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mount]:
    """One mount for each data path and TTL."""
    path, ttl = request.param
    with Mount(
        f"{module_bucket}/{path}-{ttl}",
        tmp_path_factory.mktemp(f"{path}-{ttl}"),
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        data_path=path,
        metadata_ttl=ttl,
    ) as one:
        yield one
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


def test_what_is_written_after_others_deleted_the_file_is_stored(place: Workplace) -> None:
    place.put("status.json", b"{}")
    path = place.path / "status.json"
    path.stat()
    place.erase("status.json")
    with refused_as(errno.ENOENT, errno.ESTALE):
        os.utime(path)
    path.write_bytes(b"precious")
    assert place.stored("status.json") == b"precious"


@pytest.mark.parametrize("known", ["read", "seen", "listed"])
def test_what_is_appended_to_what_others_changed_comes_after_it(
    place: Workplace, known: str
) -> None:
    place.put("log", b"a\n")
    place.run(*{"read": ["cat"], "seen": ["stat"], "listed": ["ls", "-l"]}[known], "log")
    place.put("log", b"a\nb\n")
    place.run("sh", "-c", "echo c >> log")
    assert place.stored("log") == b"a\nb\nc\n"
    assert (place.path / "log").read_bytes() == b"a\nb\nc\n"


@pytest.mark.parametrize("size", [7, 9_000_000])
def test_what_was_replaced_before_it_was_opened_is_read_as_it_is_now(
    place: Workplace, size: int
) -> None:
    place.put("latest", b"1" * size)
    place.put("gone", b"x")
    place.run("ls", "-l")
    place.put("latest", b"2" * size)
    place.erase("gone")
    assert (place.path / "latest").read_bytes() == b"2" * size
    with refused(errno.ENOENT):
        (place.path / "gone").read_bytes()


def test_the_time_of_a_directory_moves_when_others_add_a_file(
    place: Workplace, mounted: Mount
) -> None:
    place.put("models/one", b"x")
    directory = place.path / "models"
    list(directory.iterdir())
    before = directory.stat().st_mtime_ns
    place.put("models/two", b"y")
    if "60s" in mounted.source:
        assert ossfs("refresh", directory, environment={}).code == 0
    wait_until(lambda: len(list(directory.iterdir())) == 2)
    wait_until(lambda: directory.stat().st_mtime_ns > before)


def test_a_link_of_s3fs_is_followed_after_a_listing(place: Workplace) -> None:
    place.put("blob", b'{"model_type": "llama"}')
    for name in ("config.json", "other.json"):
        place.put(name, b"blob", {"mode": str(stat.S_IFLNK | 0o777), "uid": "0", "gid": "0"})
    place.run("ls", "-l")
    assert (place.path / "config.json").read_bytes() == b'{"model_type": "llama"}'
    (place.path / "other.json").write_bytes(b"{}")
    assert place.stored("blob") == b"{}"
    assert {path.name for path in place.path.iterdir()} == {"blob", "config.json", "other.json"}


def test_refresh_takes_what_others_deleted_out_of_sight(place: Workplace, mounted: Mount) -> None:
    place.put("gone", b"x" * 100)
    assert (place.path / "gone").read_bytes() == b"x" * 100
    place.erase("gone")
    code = ossfs("refresh", place.path / "gone", environment={}).code
    assert code == 0 or "-60s" not in mounted.source  # there, it may be seen to be gone by itself
    assert not (place.path / "gone").exists()
