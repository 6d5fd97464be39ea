"""Headers that options put on every request of a kind, and the key file of SSE-C."""

import base64
import hashlib
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.model import ByteRange, CommitRequest, ObjectVersion
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.standing import StandingHeaders, read_key
from tests.support.scripted_server import store_for
from tests.unit.store.quirky import Bucket, etag_of, quirky

KEY = bytes(range(32))
ENCRYPTION = "x-amz-server-side-encryption"


def every_request(**options: object) -> Bucket:
    """What a store is asked in one of each operation."""
    with quirky() as (url, bucket):
        store = store_for(url, **options)
        try:
            bucket.objects["source"] = b"content"
            source = ObjectVersion("source", etag_of(b"content"), 7)
            store.put(CommitRequest("key"), b"x")
            store.head("key")
            store.get_range_into(source, 0, memoryview(bytearray(7)))
            store.copy(source, "copy")
            upload = store.start_multipart(CommitRequest("large"))
            part = store.upload_part(upload, 1, b"x")
            copied = store.copy_part(upload, 2, source, ByteRange(0, 7))
            store.complete(upload, [part, copied], CommitRequest("large"))
            store.delete("key")
        finally:
            store.close()
    return bucket


def test_every_request_says_who_pays() -> None:
    bucket = every_request(request_payer=True)
    payers = {headers.get("x-amz-request-payer") for _, _, headers in bucket.requests}
    assert payers == {"requester"}


def test_no_request_says_more_than_was_asked_for() -> None:
    for _, _, headers in every_request().requests:
        assert not {"x-amz-request-payer", "x-amz-acl", ENCRYPTION} & headers.keys()


def test_whatever_makes_an_object_says_how_it_is_encrypted_and_whose_it_is() -> None:
    said = {
        ENCRYPTION: "aws:kms",
        f"{ENCRYPTION}-aws-kms-key-id": "alias/own",
        "x-amz-acl": "bucket-owner-full-control",
    }
    bucket = every_request(
        sse="aws:kms", sse_kms_key_id="alias/own", acl="bucket-owner-full-control"
    )
    for method, target, headers in bucket.requests:
        makes = (method == "PUT" and "?" not in target) or target.endswith("?uploads=")
        assert {n: headers[n] for n in said if n in headers} == (said if makes else {}), target


def test_a_key_of_the_customers_goes_with_all_that_reads_or_writes_bytes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(KEY)
    digest = hashlib.md5(KEY, usedforsecurity=False).digest()
    said = {
        "customer-algorithm": "AES256",
        "customer-key": base64.b64encode(KEY).decode(),
        "customer-key-md5": base64.b64encode(digest).decode(),
    }
    for method, target, headers in every_request(sse_key_file=path).requests:
        ends = method == "DELETE" or (method == "POST" and "uploads" not in target)
        sent = {name: headers.get(f"{ENCRYPTION}-{name}") for name in said}
        assert sent == (dict.fromkeys(said) if ends else said), (method, target)
        if "x-amz-copy-source" in headers:
            of_source = f"x-amz-copy-source-{ENCRYPTION.removeprefix('x-amz-')}-"
            assert {name: headers[of_source + name] for name in said} == said


@pytest.mark.parametrize(
    "content",
    [KEY, base64.b64encode(KEY), base64.b64encode(KEY) + b"\n", KEY.hex().encode() + b"\n"],
    ids=["plain", "base64", "line of base64", "hexadecimal"],
)
def test_a_key_file_is_read_however_it_is_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    assert read_key(path) == KEY


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (KEY[:31], 0o600, "holds no key of 32 bytes"),
        (b"", 0o600, "holds no key of 32 bytes"),
        (b"not a key at all, whatever it says ....", 0o600, "openssl rand -base64 32"),
        (KEY, 0o640, "can be read by others (mode 0640): run chmod 600"),
        (None, 0o600, "cannot be read: No such file or directory"),
    ],
)
def test_a_key_file_that_is_none_is_told_without_its_content(
    tmp_path: Path, content: bytes | None, mode: int, sentence: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(EnvironmentProblemError) as told:
        StandingHeaders(StoreOptions("bucket", sse_key_file=path))
    assert sentence in str(told.value)
    assert f"the SSE-C key file {path}" in str(told.value)
    assert "whatever it says" not in str(told.value)
