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


CALLS: dict[str, Call] = {
    "list": lambda root: list((root / "directory").iterdir()),
    "stat": lambda root: (root / "directory/listed").stat(),
    "look": lambda root: (root / "unknown").exists(),
    "read": lambda root: (root / "readable").read_bytes(),
    "create": lambda root: (root / "new").write_bytes(b"x"),
    "create large": lambda root: (root / "large").write_bytes(bytes(20 * MIB)),
    "append": lambda root: append(root / "appended"),
    "mkdir": lambda root: (root / "made").mkdir(),
    "chmod": lambda root: (root / "moded").chmod(0o600),
    "rename": lambda root: (root / "moved").rename(root / "elsewhere"),
    "remove": lambda root: (root / "removed").unlink(),
}
DENIED: dict[str, tuple[set[str], str, str]] = {
    # operation: the calls that fail, the doctor's check, the right it names
    "ListObjects": (
        {"list", "look", "create", "create large", "mkdir", "rename"},
        "list",
        "permission to list",
    ),
    "HeadObject": (
        {"look", "create", "create large", "append", "mkdir", "chmod", "rename"},
        "get",
        "s3:GetObject",
    ),
    "GetObject": ({"read", "append"}, "get", "s3:GetObject"),
    "PutObject": ({"create", "append", "mkdir"}, "put", "s3:PutObject"),
    "CopyObject": ({"chmod", "rename"}, "copy", "s3:PutObject"),
    "CreateMultipartUpload": ({"create large"}, "multipart", "s3:PutObject"),
    "UploadPart": ({"create large"}, "multipart", "s3:PutObject"),
    "CompleteMultipartUpload": ({"create large"}, "", ""),
    "AbortMultipartUpload": (set(), "multipart", "s3:AbortMultipartUpload"),
    "DeleteObject": ({"rename", "remove"}, "delete", "s3:DeleteObject"),
}


@pytest.fixture
def filled(bucket: str, minio_client: Minio) -> str:
    for name in ("readable", "appended", "moded", "moved", "removed", "directory/listed"):
        minio_client.put_object(bucket, name, io.BytesIO(b"content"), 7)
    return bucket


@pytest.mark.parametrize("operation", DENIED)
def test_one_denied_verb_fails_those_calls_that_need_it(
    mount: MountFactory, proxy: Proxy, filled: str, seaweed: SeaweedServer, operation: str
) -> None:
    expected, check, right = DENIED[operation]
    mounted = mount(filled, endpoint=proxy.endpoint)
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
        arguments = ("doctor", filled, "--endpoint", proxy.endpoint, "--write")
        told = ossfs(*arguments, environment=seaweed.environment).out
        row = told[told.index(f"\n{check} ") :]
        assert row.split()[1] == "failed"
        assert right in " ".join(row[: row.find("\n\n") if "\n\n" in row else None].split())
    proxy.faults.clear()
    assert mounted.unmount() in (0, 1)  # what was not written is told as unsaved


def test_what_an_object_lock_forbids_is_eperm_with_the_stores_reason(
    mount: MountFactory, proxy: Proxy, filled: str
) -> None:
    mounted = mount(filled, endpoint=proxy.endpoint)
    for operation, call in (
        ("DeleteObject", (mounted.path / "removed").unlink),
        ("PutObject", lambda: (mounted.path / "appended").write_bytes(b"other")),
    ):
        proxy.faults.append(Fault(operation, status=409, code="FileImmutable"))
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
