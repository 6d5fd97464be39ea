"""A bucket whose policy denies one verb at a time: which calls fail, with which errno, and that
the doctor names the right which is missing."""

import errno
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import Tags
from minio.versioningconfig import VersioningConfig

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.faults import Fault
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2

Call = Callable[[Path], object]


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")


CALLS: dict[str, Call] = {
    "list": lambda root: list((root / "directory").iterdir()),
    "stat": lambda root: (root / "directory/listed").stat(),
    "look": lambda root: (root / "unknown").exists(),
    "read": lambda root: (root / "readable").read_bytes(),
    "create": lambda root: (root / "new").write_bytes(b"x"),
    "create large": lambda root: (root / "large").write_bytes(bytes(20 * MIB)),
    "append": lambda root: append(root / "appended"),
    "change": lambda root: change(root / "changed"),
    "mkdir": lambda root: (root / "made").mkdir(),
    "chmod": lambda root: (root / "moded").chmod(0o600),
    "rename": lambda root: (root / "moved").rename(root / "elsewhere"),
    "rename many": lambda root: (root / "tree").rename(root / "forest"),
    "remove": lambda root: (root / "removed").unlink(),
}
LARGE = {"create large", "change"}
DENIED: dict[str, tuple[set[str], str, str]] = {
    # operation: the calls that fail, the doctor's check, the right it names
    "ListObjects": (
        {"list", "look", "create", "create large", "mkdir", "rename", "rename many"},
        "list",
        "permission to list",
    ),
    "HeadObject": (
        {"look", "create", "append", "mkdir", "chmod", "rename", "rename many"} | LARGE,
        "get",
        "s3:GetObject",
    ),
    "GetObject": ({"read", "append", "change"}, "get", "s3:GetObject"),
    "PutObject": ({"create", "append", "mkdir"}, "put", "s3:PutObject"),
    "CopyObject": ({"chmod", "rename", "rename many"}, "copy", "s3:PutObject"),
    "CreateMultipartUpload": (LARGE, "multipart", "s3:PutObject"),
    "UploadPart": (LARGE, "multipart", "s3:PutObject"),
    # Who may not copy parts sends the file whole.
    "UploadPartCopy": (set(), "multipart", "s3:GetObject and s3:PutObject"),
    "CompleteMultipartUpload": (LARGE, "multipart", "s3:PutObject"),
    "AbortMultipartUpload": (set(), "multipart", "s3:AbortMultipartUpload"),
    "DeleteObject": ({"rename", "rename many", "remove"}, "delete", "s3:DeleteObject"),
    # Objects are removed one by one then, for which the right is the same.
    "DeleteObjects": (set(), "", ""),
    # Asked only whether an upload whose completion fails is still there.
    "ListParts": (set(), "", ""),
    "GetObjectTagging": (set(), "tags", "grant s3:GetObjectTagging"),
    "PutObjectTagging": (set(), "tags", "grant s3:PutObjectTagging"),
    "GetObjectAcl": (set(), "tags", "grant s3:GetObjectAcl"),
    # No mount needs them but one of the past.
    "GetBucketVersioning": (set(), "versions", "grant s3:GetBucketVersioning"),
    "ListObjectVersions": (set(), "versions", "grant s3:ListBucketVersions"),
}
STATUSES = {"tags": "warning", "versions": "skipped"}
"""Of checks that do not fail, as nothing does but what they name."""


@pytest.fixture
def filled(bucket: str, minio_client: Minio) -> str:
    minio_client.set_bucket_versioning(bucket, VersioningConfig("Enabled"))
    small = ("readable", "appended", "moded", "moved", "removed", "directory/listed")
    for name in (*small, "tree/a", "tree/b"):
        minio_client.put_object(bucket, name, io.BytesIO(b"content"), 7)
    minio_client.put_object(bucket, "changed", io.BytesIO(bytes(12 * MIB)), 12 * MIB)
    return bucket


@pytest.mark.parametrize("operation", DENIED)
def test_one_denied_verb_fails_those_calls_that_need_it(
    mount: MountFactory, proxy: Proxy, filled: str, seaweed: SeaweedServer, operation: str
) -> None:
    expected, check, right = DENIED[operation]
    mounted = mount(filled, endpoint=proxy.endpoint, acl="keep")
    assert list(mounted.path.iterdir())
    denied = Fault(operation, times=None, status=403, code="AccessDenied")
    proxy.faults.append(denied)
    failed = {}
    for name, call in CALLS.items():
        try:
            call(mounted.path)
        except OSError as exc:
            failed[name] = exc.errno
    assert failed == dict.fromkeys(expected, errno.EACCES)
    if check:
        arguments = ("doctor", filled, "--endpoint", proxy.endpoint, "--write", "--acl", "keep")
        told = ossfs(*arguments, environment=seaweed.environment).out
        row = told[told.index(f"\n{check} ") :]
        assert row.split()[1] == STATUSES.get(check, "failed")
        assert right in " ".join(row[: row.find("\n\n") if "\n\n" in row else None].split())
    proxy.faults.clear()
    assert mounted.unmount() in (0, 1)  # what was not written is told as unsaved


def test_what_an_object_lock_forbids_is_eperm_with_the_stores_reason(
    mount: MountFactory, proxy: Proxy, filled: str
) -> None:
    mounted = mount(filled, endpoint=proxy.endpoint)
    for operation, key, call in (
        ("DeleteObject", "removed", (mounted.path / "removed").unlink),
        ("PutObject", "appended", lambda: (mounted.path / "appended").write_bytes(b"other")),
    ):
        proxy.faults.append(Fault(operation, key=key, status=409, code="FileImmutable"))
        with pytest.raises(PermissionError) as refused:
            call()
        assert refused.value.errno == errno.EPERM
        assert re.search(f"{operation} .* 409 FileImmutable", mounted.log), mounted.log
    assert (mounted.path / "removed").read_bytes() == b"content"


def test_tags_that_may_not_be_asked_for_are_told_to_be_lost(
    mount: MountFactory, proxy: Proxy, filled: str, minio_client: Minio
) -> None:
    wanted = Tags.new_object_tags()
    wanted["team"] = "a"
    for name in ("appended", "moded"):
        minio_client.set_object_tags(filled, name, wanted)
    mounted = mount(filled, endpoint=proxy.endpoint)
    proxy.faults.append(Fault("GetObjectTagging", times=None, status=403, code="AccessDenied"))
    for name in ("appended", "moded"):
        append(mounted.path / name)
    assert mounted.log.count("of changed objects is lost") == 1
    assert minio_client.get_object(filled, "appended").read() == b"contentmore"
