"""What stores tell of the past: the part of ObjectStore about versions, against real servers.

``VERSIONS`` says what each of them keeps. Of what happens within one second moto tells no order.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from ossfs_py.errors import (
    AccessDeniedError,
    ObjectMissingError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import HistoryEntry, HistoryQuery
from ossfs_py.store import StoreOptions, open_store
from ossfs_py.store.base import MIN_PART_BYTES, ObjectStore
from ossfs_py.telemetry.metrics import Metrics
from tests.support.seaweed import SeaweedServer
from tests.support.servers import moto, rclone
from tests.support.servers.deviations import VERSIONS

BUCKET = "kept"


class Versioned:
    """A bucket that keeps versions, as a client of its own sees it, and as we do."""

    def __init__(self, name: str, endpoint: str, keys: tuple[str, str], work: Path) -> None:
        self.name = name
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        path = work / f"keys-{name}"
        path.touch(0o600)
        path.write_text(f"{keys[0]}:{keys[1]}\n")
        self.store: ObjectStore = open_store(
            StoreOptions(BUCKET, endpoint=endpoint, credentials_file=path, retry_budget_seconds=10),
            Metrics(),
        )

    def put(self, key: str, content: bytes, **metadata: str) -> str:
        """The id of the version."""
        made = self.client.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=metadata)
        return str(made["VersionId"])

    def keep(self, status: str = "Enabled") -> None:
        self.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": status})

    def history(self, prefix: str = "", **query: object) -> list[HistoryEntry]:
        found: list[HistoryEntry] = []
        after = None
        while True:
            page = self.store.list_versions(HistoryQuery(prefix, after=after, **query))  # type: ignore[arg-type]
            found += [entry for entry in page.entries if entry not in found]
            after = page.following
            if after is None:
                return found


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def versioned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Versioned]:
    work = tmp_path_factory.mktemp("versions")
    if request.param == "moto":
        with moto.run(work) as started:
            keys = (started.access_key, started.secret_key)
            made = Versioned("moto", started.endpoint, keys, work)
            made.client.create_bucket(Bucket=BUCKET)
            yield made
            made.store.close()
        return
    server: SeaweedServer = request.getfixturevalue("seaweed")
    server.make_bucket(BUCKET)
    keys = (server.access_key, server.secret_key)
    made = Versioned("seaweedfs", server.endpoint, keys, work)
    yield made
    made.store.close()


def test_all_that_happened_to_a_key_is_listed_and_each_version_is_read(
    versioned: Versioned,
) -> None:
    store, key = versioned.store, "dir/a + %41"
    if store.versioning() == "off":  # the first test here
        versioned.client.put_object(Bucket=BUCKET, Key="unversioned", Body=b"early")
        versioned.keep()
    assert store.versioning() == "on"
    first = versioned.put(key, b"first", number="1")
    second = versioned.put(key, b"second one", number="2")
    time.sleep(1.1)  # stores tell whole seconds
    versioned.client.delete_object(Bucket=BUCKET, Key=key)
    versioned.put("dir/behind", b"another")
    entries = versioned.history(key)
    assert {entry.key for entry in entries} == {key}
    assert entries[0].info is None
    assert [entry.is_latest for entry in entries] == [True, False, False]
    assert {entry.version_id for entry in entries[1:]} == {first, second}
    assert abs(entries[0].mtime_ns / 1e9 - time.time()) < 60
    for entry in entries[1:]:
        assert entry.info is not None
        content = bytearray(entry.info.size)
        told = store.get_range_into(entry.info.version, 0, memoryview(content))
        assert bytes(content) == {first: b"first", second: b"second one"}[entry.version_id]
        assert told is not None
        number = {first: "1", second: "2"}[entry.version_id]
        assert told.metadata == store.head(key, entry.version_id).metadata == {"number": number}
    with pytest.raises(ObjectMissingError):
        store.head(key)
    assert [e.version_id for e in versioned.history("unversioned")] == ["null"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_of_any_size_tell_the_same(versioned: Versioned, size: int) -> None:
    versioned.keep()
    for number in range(3):
        versioned.put("pages/a", b"%d" % number)
        versioned.client.delete_object(Bucket=BUCKET, Key="pages/a")
    versioned.put("pages/b", b"once")
    whole = versioned.history("pages/")
    parts = versioned.history("pages/", max_entries=size)
    assert {e.version_id for e in parts} == {e.version_id for e in whole}
    assert len(whole) == len(parts)
    assert whole[0].is_latest


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_a_listing_that_goes_on_loses_nothing_beside_a_directory(
    versioned: Versioned, delimiter: str
) -> None:
    """Names that sort before the slash of a directory that is called like their beginning."""
    versioned.keep()
    keys = ("dir-x", "dir.txt", "dir/a", "dir/b", "dirs/x")
    for key in keys:
        versioned.put(f"beside{len(delimiter)}/{key}", b"content")

    def told(max_entries: int) -> set[str]:
        found: set[str] = set()
        after = None
        while True:
            prefix = f"beside{len(delimiter)}/"
            page = versioned.store.list_versions(
                HistoryQuery(prefix, delimiter, after, max_entries)
            )
            found |= {entry.key.removeprefix(prefix) for entry in page.entries}
            found |= {each.removeprefix(prefix) for each in page.prefixes}
            after = page.following
            if after is None:
                return found

    everything = {"dir-x", "dir.txt", "dir/", "dirs/"} if delimiter else set(keys)
    for size in (1000, 1, 2, 3, 4):
        assert told(size) == everything, size


def test_a_listing_goes_on_when_the_version_it_has_come_to_is_removed(
    versioned: Versioned,
) -> None:
    """As a lifecycle rule does meanwhile."""
    versioned.keep()
    ids = [versioned.put("expiring/a", b"%d" % number) for number in range(3)]
    versioned.put("expiring/b", b"stays")
    page = versioned.store.list_versions(HistoryQuery("expiring/", max_entries=2))
    assert page.following is not None
    for version_id in ids[1:]:
        versioned.store.delete_version("expiring/a", version_id)
    rest = versioned.store.list_versions(HistoryQuery("expiring/", after=page.following))
    assert "expiring/b" in {entry.key for entry in rest.entries}


def test_a_version_is_copied_over_what_came_later_and_in_parts(versioned: Versioned) -> None:
    versioned.keep()
    store, content = versioned.store, b"old" * MIN_PART_BYTES
    old = versioned.put("copied", content, kept="yes")
    versioned.put("copied", b"new")
    info = store.head("copied", old)
    assert info.pinned
    store.copy(info.version, "copied", like=info)
    assert store.head("copied").metadata == {"kept": "yes"}
    answer = versioned.client.get_object(Bucket=BUCKET, Key="copied")
    assert answer["Body"].read() == content


def test_a_version_that_was_removed_is_stale_and_its_removal_repeated_is_no_error(
    versioned: Versioned,
) -> None:
    versioned.keep()
    store = versioned.store
    old = versioned.put("removed", b"old")
    versioned.put("removed", b"new")
    version = store.head("removed", old).version
    for _ in range(2):
        store.delete_version("removed", old)
    with pytest.raises(VersionChangedError):
        store.get_range_into(version, 0, memoryview(bytearray(3)))
    with pytest.raises(ObjectMissingError):
        store.head("removed", old)
    assert len(versioned.history("removed")) == 1


def test_a_delete_marker_that_is_removed_brings_the_object_back(versioned: Versioned) -> None:
    versioned.keep()
    versioned.put("back", b"content", kept="yes")
    versioned.client.delete_object(Bucket=BUCKET, Key="back")
    marker = versioned.history("back")[0]
    versioned.store.delete_version("back", marker.version_id)
    assert versioned.store.head("back").metadata == {"kept": "yes"}


def test_a_suspended_bucket_says_so_and_its_newest_version_is_null(versioned: Versioned) -> None:
    versioned.keep()
    kept = versioned.put("suspended", b"kept")
    versioned.keep("Suspended")
    assert versioned.store.versioning() == "suspended"
    for content in (b"lost", b"last"):
        versioned.client.put_object(Bucket=BUCKET, Key="suspended", Body=content)
    newest, *older = versioned.history("suspended")
    assert newest.version_id == "null"
    assert [entry.version_id for entry in older] == ([kept] if VERSIONS[versioned.name] else [])
    content = bytearray(4)
    assert newest.info is not None
    versioned.store.get_range_into(newest.info.version, 0, memoryview(content))
    assert content == b"last"
    versioned.keep()


def test_a_locked_object_says_until_when_it_is_retained(versioned: Versioned) -> None:
    versioned.keep()
    if versioned.name == "seaweedfs":  # tells it of buckets that were made for it only
        versioned.put("locked", b"free")
        assert versioned.store.head("locked").retention is None
        return
    client = versioned.client
    told = client.list_object_versions(Bucket=BUCKET)
    for one in (*told.get("Versions", ()), *told.get("DeleteMarkers", ())):
        # moto locks empty buckets only.
        client.delete_object(Bucket=BUCKET, Key=one["Key"], VersionId=one["VersionId"])
    client.put_object_lock_configuration(
        Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    )
    until = datetime.now(UTC) + timedelta(days=1)
    client.put_object(
        Bucket=BUCKET,
        Key="locked",
        Body=b"kept",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
        ObjectLockLegalHoldStatus="ON",
    )
    retention = versioned.store.head("locked").retention or ""
    assert retention.startswith(f"GOVERNANCE until {until:%Y-%m-%d}")
    assert retention.endswith(", legal hold")
    version_id = versioned.history("locked")[0].version_id
    with pytest.raises(AccessDeniedError):
        versioned.store.delete_version("locked", version_id)


def test_a_store_without_versions_says_so(tmp_path: Path) -> None:
    with rclone.run(tmp_path) as started:
        (tmp_path / "data" / BUCKET).mkdir()
        keys = (started.access_key, started.secret_key)
        made = Versioned("rclone", started.endpoint, keys, tmp_path)
        with contextlib.suppress(UnsupportedByStoreError):
            assert made.store.versioning() == "off"
        made.store.close()
