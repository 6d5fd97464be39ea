"""Each fault of the bucket and of the mountpoint, staged, is told by its own check."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ossfs_py.doctor.bucket import Bucket, credentials
from ossfs_py.doctor.findings import Finding, Status
from ossfs_py.doctor.mounts import check_mountpoint, readahead
from ossfs_py.errors import (
    AccessDeniedError,
    ArchivedError,
    EnvironmentProblemError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.host.mountpoint import Machine
from ossfs_py.model import CommitRequest
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.base import Capabilities, Feature
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics
from tests.support.fake_store import FakeStore
from tests.support.versioned_store import VersionedStore

MIB = 1024**2
SCRATCH = "models/.ossfs-py-probe-1"


def bucket_of(
    store: FakeStore, *, write: bool = False, clock: Callable[[], float] | None = None
) -> Bucket:
    more = {} if clock is None else {"clock": clock}
    return Bucket(store, "models/", scratch=SCRATCH if write else None, **more)  # type: ignore[arg-type]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.fixture
def store() -> FakeStore:
    """A bucket with one object to measure with, and one outside of the prefix."""
    store = FakeStore()
    store.put(CommitRequest("models/weights"), bytes(3 * MIB))
    store.put(CommitRequest("other"), bytes(9 * MIB))
    store.requests.clear()
    return store


def refusing(store: FakeStore, method: str, error: Exception) -> FakeStore:
    def refuse(called: str, _key: str) -> None:
        if called == method:
            raise error

    store.on_request = refuse
    return store


def test_a_bucket_without_faults_is_well_and_left_as_it_was(store: FakeStore) -> None:
    found = by_name(list(bucket_of(store, write=True).check()))
    assert {finding.status for finding in found.values()} == {Status.GOOD}
    assert list(found) == [
        *("list", "get", "versions", "put", "copy", "multipart", "tags", "delete"),
        *("capabilities", "throughput"),
    ]
    assert found["list"].told == "allowed, 1 object"
    assert set(store.objects) == {"models/weights", "other"}


def test_nothing_is_written_unless_asked_for(store: FakeStore) -> None:
    found = by_name(list(bucket_of(store).check()))
    skipped = ("put", "copy", "multipart", "tags", "delete", "capabilities")
    assert {found[name].status for name in skipped} == {Status.SKIPPED}
    assert set(store.requests) <= {"check", "list_page", "head", "get_range_into", "versioning"}


def test_a_bucket_that_cannot_be_listed_is_told_and_the_rest_is_skipped(store: FakeStore) -> None:
    sentence = "access to the bucket 'models' is denied"
    refusing(store, "check", EnvironmentProblemError(sentence))
    found = list(bucket_of(store, write=True).check())
    assert (found[0].status, found[0].told) == (Status.FAILED, sentence)
    assert {finding.status for finding in found[1:]} == {Status.SKIPPED}
    refusing(store, "list_page", AccessDeniedError("denied"))
    assert bucket_of(store).list().status is Status.FAILED


DENIED = AccessDeniedError("403 AccessDenied", operation="X", key="k", request_id="REQ")


@pytest.mark.parametrize(
    ("method", "check", "right"),
    [
        ("get_range_into", "get", "s3:GetObject"),
        ("put", "put", "s3:PutObject"),
        ("copy", "copy", "s3:GetObjectTagging"),
        ("start_multipart", "multipart", "s3:PutObject"),
        ("complete", "multipart", "s3:PutObject"),
        ("delete", "delete", "s3:DeleteObject"),
    ],
)
def test_a_right_that_is_missing_is_named(
    store: FakeStore, method: str, check: str, right: str
) -> None:
    found = by_name(list(bucket_of(refusing(store, method, DENIED), write=True).check()))
    assert found[check].status is Status.FAILED
    assert "403 AccessDenied" in found[check].told
    assert "REQ" in found[check].told
    assert right in found[check].fix


@pytest.mark.parametrize(
    ("method", "check", "right"),
    [
        ("abort", "multipart", "s3:AbortMultipartUpload"),
        ("copy_part", "multipart", "s3:GetObject and s3:PutObject"),
        ("head", "get", "s3:GetObject"),
    ],
)
def test_the_right_is_that_of_the_operation_which_was_denied(
    store: FakeStore, method: str, check: str, right: str
) -> None:
    operation = {
        "abort": "AbortMultipartUpload",
        "copy_part": "UploadPartCopy",
        "head": "HeadObject",
    }[method]
    denied = AccessDeniedError("403 AccessDenied", operation=operation)
    found = by_name(list(bucket_of(refusing(store, method, denied), write=True).check()))
    assert found[check].status is Status.FAILED
    assert right in found[check].fix


@pytest.mark.parametrize("operation", ["GetObjectTagging", "PutObjectTagging", "GetObjectAcl"])
def test_what_is_lost_of_changed_objects_is_a_warning_with_the_right(
    store: FakeStore, operation: str
) -> None:
    denied = AccessDeniedError("403 AccessDenied", operation=operation)
    refusing(store, "denied_descriptions", denied)
    found = by_name(list(bucket_of(store, write=True).check()))["tags"]
    assert found.status is Status.WARNING
    assert f"grant s3:{operation}" in found.fix
    assert ("lose their ACLs" if operation == "GetObjectAcl" else "lose their tags") in found.fix


@pytest.mark.parametrize(
    ("method", "operation", "right"),
    [
        ("versioning", "GetBucketVersioning", "s3:GetBucketVersioning"),
        ("list_versions", "ListObjectVersions", "s3:ListBucketVersions"),
    ],
)
def test_rights_that_no_mount_needs_are_named_and_no_warning(
    method: str, operation: str, right: str
) -> None:
    store = VersionedStore()
    refusing(store, method, AccessDeniedError("403 AccessDenied", operation=operation))
    found = bucket_of(store).versions()
    assert found.status is Status.SKIPPED
    assert right in found.fix


def test_the_versions_of_a_bucket_are_told(store: FakeStore) -> None:
    assert bucket_of(VersionedStore()).versions().told == "kept"
    assert bucket_of(store).versions().told == "not kept"
    none = refusing(store, "versioning", UnsupportedByStoreError("501"))
    assert bucket_of(none).versions().told == "the store keeps none"
    away = refusing(store, "versioning", StoreUnavailableError("503"))
    assert bucket_of(away).versions().status is Status.SKIPPED


def test_a_scratch_key_that_stays_is_named(store: FakeStore) -> None:
    found = by_name(list(bucket_of(refusing(store, "delete", DENIED), write=True).check()))
    assert f"'{SCRATCH}' stays" in found["delete"].told


def test_a_store_that_fails_later_is_no_missing_right(store: FakeStore) -> None:
    refusing(store, "get_range_into", StoreUnavailableError("503 SlowDown"))
    found = by_name(list(bucket_of(store).check()))
    assert "try again" in found["get"].fix
    assert found["throughput"].status is Status.FAILED


def test_an_archived_object_is_a_warning(store: FakeStore) -> None:
    refusing(store, "get_range_into", ArchivedError("archived"))
    assert bucket_of(store).list().status is Status.GOOD
    bucket = bucket_of(store)
    bucket.list()
    finding = bucket.get()
    assert finding.status is Status.WARNING
    assert "is archived" in finding.told


def test_a_store_that_lacks_abilities_is_a_warning() -> None:
    features = (
        Feature("create-only", "a write is refused", "ignored", "looked at before"),
        Feature("replace-only", "another is refused", "works", "without quotes"),
        Feature("part copies", "the store copies", "unknown"),
    )
    lacking = Capabilities(False, True, False, features)
    found = list(bucket_of(FakeStore(capabilities=lacking), write=True).capabilities())
    assert [one.check for one in found] == [
        "capabilities",
        "create-only",
        "replace-only",
        "part copies",
    ]
    assert found[0].status is Status.WARNING
    assert found[0].told == "the store lacks create-only, part copies"
    rows = [(one.status, one.verdict, one.told, one.fix) for one in found[1:3]]
    assert rows == [
        (Status.WARNING, "ignored", "a write is refused", "looked at before"),
        (Status.GOOD, "works", "another is refused", "without quotes"),
    ]
    assert "try again" in found[3].fix


def test_an_empty_bucket_leaves_nothing_to_measure() -> None:
    found = by_name(list(bucket_of(FakeStore()).check()))
    assert {found["get"].status, found["throughput"].status} == {Status.SKIPPED}


def test_a_slow_store_is_a_warning(store: FakeStore) -> None:
    lock, now = threading.Lock(), 0.0

    def clock() -> float:
        nonlocal now
        with lock:
            now += 0.5
            return now

    bucket = bucket_of(store, clock=clock)
    bucket.list()
    finding = bucket.throughput()
    assert finding.status is Status.WARNING
    assert "internal endpoint" in finding.fix


# -- credentials ------------------------------------------------------------------------------


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "OSS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def source(**options: object) -> CredentialSource:
    return CredentialSource(StoreOptions("models", **options), Metrics(), oss_first=False)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_no_credentials")
def test_missing_credentials_are_told() -> None:
    finding = credentials(source())
    assert finding.status is Status.FAILED
    assert finding.told.startswith("no credentials found")


@pytest.mark.usefixtures("_no_credentials")
def test_credentials_are_told_by_their_source_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.touch(0o600)
    path.write_text("AKIDENTIFIER:verysecret\n")
    finding = credentials(source(credentials_file=path))
    assert (finding.status, finding.told) == (Status.GOOD, f"from the password file {path}")
    path.chmod(0o644)
    finding = credentials(source(credentials_file=path))
    assert finding.status is Status.FAILED
    assert "chmod 600" in finding.told
    assert "none" in credentials(source(anonymous=True)).told


# -- mountpoint -------------------------------------------------------------------------------


def mountpoint(path: Path, table: str = "", *, nonempty: bool = False) -> dict[str, Finding]:
    mounts = path.parent / "mountinfo"
    mounts.write_text(table)
    machine = Machine(mount_table=mounts)
    return by_name(list(check_mountpoint(path, nonempty=nonempty, machine=machine)))


def line(path: Path, kind: str, source: str = "models") -> str:
    return f"36 35 0:53 / {path} rw,nosuid - {kind} {source} rw,user_id={os.geteuid()}\n"


def test_an_empty_directory_can_be_mounted_on(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    found = mountpoint(path)
    assert (found["mountpoint"].status, found["readahead"].status) == (Status.GOOD, Status.SKIPPED)


def test_a_directory_that_cannot_be_mounted_on_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    finding = mountpoint(path)["mountpoint"]
    assert (finding.status, finding.fix) == (Status.FAILED, f"mkdir -p {path}")
    path.touch()
    assert "is not a directory" in mountpoint(path)["mountpoint"].told
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    assert "is not empty" in mountpoint(path)["mountpoint"].told
    assert mountpoint(path, nonempty=True)["mountpoint"].status is Status.GOOD


def test_another_file_system_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    finding = mountpoint(path, line(path, "ext4", "/dev/sdb"))["mountpoint"]
    assert finding.status is Status.FAILED
    assert finding.told == f"/dev/sdb is mounted at {path} (ext4)"


def test_a_short_readahead_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    setting = tmp_path / f"{os.major(device)}:{os.minor(device)}" / "read_ahead_kb"
    assert readahead(tmp_path, tmp_path).status is Status.SKIPPED
    setting.parent.mkdir()
    setting.write_text("128\n")
    finding = readahead(tmp_path, tmp_path)
    assert finding.status is Status.WARNING
    assert finding.told == "the kernel reads only 128 KiB ahead"
    assert str(setting) in finding.fix
    setting.write_text("1024\n")
    assert readahead(tmp_path, tmp_path).status is Status.GOOD
