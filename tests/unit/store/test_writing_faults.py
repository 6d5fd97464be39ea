"""What uploads, completions and copies make of a server that misbehaves."""

import base64
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from awscrt import checksums

from ossfs_py.errors import (
    BucketMissingError,
    ConditionFailedError,
    IntegrityError,
    ObjectMissingError,
    QuotaExceededError,
    StoreUnavailableError,
)
from ossfs_py.model import CommitRequest, Condition, FileSlice, MultipartUpload, ObjectVersion, Part
from ossfs_py.store.base import ObjectStore
from tests.support.scripted_server import (
    ETAG,
    Peer,
    ScriptedServer,
    Step,
    error,
    hang_up,
    read_only,
    reply,
    reset,
    store_for,
)

BODY = os.urandom(700_000)
MD5 = hashlib.md5(BODY, usedforsecurity=False)
CRC = base64.b64encode(checksums.crc32c(BODY).to_bytes(4, "big")).decode()
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
UPLOAD = MultipartUpload("key", "id-1")
ABSENT = Condition(only_if_absent=True)


def put(store: ObjectStore, condition: Condition | None = None) -> ObjectVersion:
    try:
        request = CommitRequest("key", {"mode": "33188"}, "a/b", condition or Condition())
        return store.put(request, memoryview(BODY))
    finally:
        store.close()


def accepted(etag: str = ETAG, **headers: str) -> dict[str, str]:
    return {"etag": f'"{etag}"', **{name.replace("_", "-"): v for name, v in headers.items()}}


def described(etag: str, size: int, **headers: str) -> dict[str, str]:
    """The headers of a HEAD answer."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"etag": f'"{etag}"', "last-modified": MODIFIED, "content-length": str(size), **fields}


def test_an_upload_says_size_type_metadata_and_checksum() -> None:
    with ScriptedServer([[[reply(200, b"", accepted(x_amz_checksum_crc32c=CRC))]]]) as server:
        assert put(store_for(server.url)) == ObjectVersion("key", ETAG, len(BODY))
    (seen,) = server.requests
    assert seen.body == BODY
    assert seen.headers["x-amz-meta-mode"] == "33188"
    assert seen.headers["content-type"] == "a/b"
    assert seen.headers["x-amz-checksum-crc32c"] == CRC
    assert "transfer-encoding" not in seen.headers
    assert "aws-chunked" not in seen.headers.get("content-encoding", "")


def test_md5_is_sent_where_it_is_chosen() -> None:
    with ScriptedServer([[[reply(200, b"", accepted())]]]) as server:
        put(store_for(server.url, checksum="md5"))
    assert server.requests[0].headers["content-md5"] == base64.b64encode(MD5.digest()).decode()


def test_a_part_of_a_file_is_sent_from_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    with ScriptedServer([[[reply(200, b"", accepted())]]]) as server, path.open("rb") as file:
        store = store_for(server.url)
        part = store.upload_part(UPLOAD, 3, FileSlice(file.fileno(), 100, 600_000))
        store.close()
    (seen,) = server.requests
    assert seen.body == BODY[100:600_100]
    assert seen.target == "/bucket/key?partNumber=3&uploadId=id-1"
    assert part == Part(3, ETAG, 600_000)


def test_a_file_shorter_than_promised_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"short")
    for checksum in ("none", "crc32c"):
        with ScriptedServer([[[reply(200)]]]) as server, path.open("rb") as file:
            store = store_for(server.url, checksum=checksum)
            with pytest.raises(OSError, match="shorter than its promised size"):
                store.upload_part(UPLOAD, 1, FileSlice(file.fileno(), 0, 10))
            store.close()


def test_a_checksum_that_differs_at_the_store_is_told() -> None:
    answer = reply(200, b"", accepted(x_amz_checksum_crc32c="AAAAAA=="))
    with ScriptedServer([[[answer]]]) as server, pytest.raises(IntegrityError):
        put(store_for(server.url))


@pytest.mark.parametrize("end", [hang_up, reset], ids=["closed", "reset"])
def test_an_upload_without_answer_is_sent_again_in_full(end: object) -> None:
    with ScriptedServer([[[read_only, end]], [[reply(200, b"", accepted())]]]) as server:  # type: ignore[list-item]
        assert put(store_for(server.url)).etag == ETAG
    assert [seen.body for seen in server.requests] == [BODY, BODY]


def test_bytes_damaged_on_the_way_are_sent_again() -> None:
    with ScriptedServer([[[error(400, "BadDigest")]], [[reply(200, b"", accepted())]]]) as server:
        assert put(store_for(server.url)).etag == ETAG


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("changed", [True, False])
def test_a_part_is_sent_again_only_if_its_bytes_are_still_those_of_its_checksum(
    tmp_path: Path, *, changed: bool, known: bool
) -> None:
    """Or a program that overwrites a part on its way waits for the retries of many seconds."""
    path = tmp_path / "body"
    path.write_bytes(BODY)

    def overwrite(_peer: Peer) -> None:
        if changed:
            with path.open("r+b") as file:
                file.write(bytes([BODY[0] ^ 1]))

    script = [[[overwrite, error(400, "BadDigest")]], [[reply(200, b"", accepted())]]]
    body_sum = checksums.crc32c(BODY) if known else None
    with ScriptedServer(script) as server, path.open("rb") as file:
        store = store_for(server.url)
        slice_ = FileSlice(file.fileno(), 0, len(BODY), body_sum)
        if changed:
            with pytest.raises(IntegrityError, match="changed while they were sent"):
                store.upload_part(UPLOAD, 1, slice_)
        else:
            assert store.upload_part(UPLOAD, 1, slice_).etag == ETAG
        store.close()
    assert len(server.requests) == (1 if changed else 2)


def test_a_full_store_is_a_matter_of_quota() -> None:
    with ScriptedServer([[[error(507, "")]]]) as server, pytest.raises(QuotaExceededError):
        put(store_for(server.url))


def test_an_answer_without_etag_is_completed_by_a_head() -> None:
    script = [[reply(200)], [reply(200, b"", described(ETAG, len(BODY)))]]
    with ScriptedServer([script]) as server:
        assert put(store_for(server.url)).etag == ETAG
    assert [seen.method for seen in server.requests] == ["PUT", "HEAD"]


def test_a_create_is_refused_when_the_key_exists() -> None:
    with (
        ScriptedServer([[[error(412, "PreconditionFailed")]]]) as server,
        pytest.raises(ConditionFailedError),
    ):
        put(store_for(server.url, conditional_writes="on"), ABSENT)
    assert server.requests[0].headers["if-none-match"] == "*"


def test_a_replacement_of_what_is_gone_is_refused() -> None:
    with (
        ScriptedServer([[[error(404, "NoSuchKey")]]]) as server,
        pytest.raises(ConditionFailedError),
    ):
        put(store_for(server.url, conditional_writes="on"), Condition(only_if_etag=ETAG))


@pytest.mark.parametrize("same_by", ["md5", "checksum"])
def test_a_create_whose_answer_was_lost_is_recognised_by_its_bytes(same_by: str) -> None:
    found = (
        described(MD5.hexdigest(), len(BODY))
        if same_by == "md5"
        else described("f" * 32, len(BODY), x_amz_checksum_crc32c=CRC)
    )
    refused = error(412, "PreconditionFailed")
    with ScriptedServer([[[hang_up]], [[refused]], [[reply(200, b"", found)]]]) as server:
        version = put(store_for(server.url, conditional_writes="on"), ABSENT)
    assert version.size == len(BODY)
    assert [seen.method for seen in server.requests] == ["PUT", "PUT", "HEAD"]


def test_a_create_given_up_without_an_answer_is_recognised_the_next_time() -> None:
    found = reply(200, b"", described(MD5.hexdigest(), len(BODY)))
    again = Condition(only_if_absent=True, repeated=True)
    with ScriptedServer([[[found]]]) as server:
        assert put(store_for(server.url, conditional_writes="on"), again).size == len(BODY)


def test_a_create_that_lost_to_other_bytes_stays_refused_after_a_lost_answer() -> None:
    refused = error(412, "PreconditionFailed")
    other = reply(200, b"", described("f" * 32, len(BODY)))
    with (
        ScriptedServer([[[hang_up]], [[refused]], [[other]]]) as server,
        pytest.raises(ConditionFailedError),
    ):
        put(store_for(server.url, conditional_writes="on"), ABSENT)


def test_crossing_conditional_writes_are_tried_again() -> None:
    crossed = error(409, "ConditionalRequestConflict")
    with ScriptedServer([[[crossed]], [[reply(200, b"", accepted())]]]) as server:
        assert put(store_for(server.url, conditional_writes="on"), ABSENT).etag == ETAG


def test_a_store_without_conditions_is_asked_with_head_first() -> None:
    exists = reply(200, b"", described(ETAG, 5))
    with ScriptedServer([[[exists]]]) as server, pytest.raises(ConditionFailedError):
        put(store_for(server.url, conditional_writes="off"), ABSENT)
    assert [seen.method for seen in server.requests] == ["HEAD"]
    with ScriptedServer([[[exists], [reply(200, b"", accepted())]]]) as server:
        put(store_for(server.url, conditional_writes="off"), Condition(only_if_etag=ETAG))
    assert [seen.method for seen in server.requests] == ["HEAD", "PUT"]


OSS_PROBE = [
    [reply(200, b"", accepted())],  # x-oss-forbid-overwrite, when there is nothing to overwrite
    [error(409, "FileAlreadyExists")],  # and when there is
    [reply(200, b"", described(ETAG, 1))],
    [error(400, "InvalidArgument")],  # If-Match
    [reply(204)],
]


def test_the_probe_learns_the_dialect_of_oss_and_removes_its_key() -> None:
    scripts = [
        [[error(501, "NotImplemented")]],  # If-None-Match
        [*OSS_PROBE, [reply(200, b"", accepted())]],
    ]
    with ScriptedServer(scripts) as server:
        store = store_for(server.url, scratch_prefix="mine/")
        put(store, ABSENT)
    probe, right, wrong, *_, removal, real = server.requests
    assert probe.target.startswith("/bucket/mine/.ossfs-py-probe-")
    assert {seen.target for seen in server.requests[:-1]} == {probe.target}
    assert probe.headers["if-none-match"] == "*"
    assert right.headers["x-oss-forbid-overwrite"] == "true"
    assert wrong.headers["x-oss-forbid-overwrite"] == "true"
    assert removal.method == "DELETE"
    assert real.target == "/bucket/key"
    assert real.headers["x-oss-forbid-overwrite"] == "true"


def test_oss_is_told_not_to_overwrite_at_both_ends_of_an_upload() -> None:
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    done = b'<CompleteMultipartUploadResult><ETag>"e-1"</ETag></CompleteMultipartUploadResult>'
    scripts = [
        [
            [error(400, "InvalidArgument")],
            *OSS_PROBE,
            [reply(200, begun)],
            [reply(404)],
            [reply(200, done)],
            [reply(200, b"", described("e-1", 5))],
        ]
    ]
    with ScriptedServer(scripts) as server:
        store = store_for(server.url)
        upload = store.start_multipart(CommitRequest("key", condition=ABSENT))
        store.complete(upload, [Part(1, "a", 5)], CommitRequest("key", condition=ABSENT))
        store.close()
    ends = [seen for seen in server.requests if seen.method == "POST"]
    assert [seen.headers["x-oss-forbid-overwrite"] for seen in ends] == ["true", "true"]


COMPLETED = (
    b"<CompleteMultipartUploadResult><ETag>&quot;%s&quot;</ETag></CompleteMultipartUploadResult>"
)
PARTS = [Part(2, hashlib.md5(b"2").hexdigest(), 3), Part(1, hashlib.md5(b"1").hexdigest(), 5)]
DIGESTS = b"".join(bytes.fromhex(part.etag) for part in reversed(PARTS))
FINISHED = f"{hashlib.md5(DIGESTS).hexdigest()}-2"


def complete(store: ObjectStore, condition: Condition | None = None) -> ObjectVersion:
    try:
        return store.complete(
            UPLOAD, PARTS, CommitRequest("key", condition=condition or Condition())
        )
    finally:
        store.close()


@pytest.mark.parametrize(
    ("answer", "told"), [(reply(200), 0), (error(403, "AccessDenied"), 1), (hang_up, 1)]
)
def test_tags_that_a_store_forgets_of_an_upload_are_given_to_the_object(
    answer: Step, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    done = [reply(200, COMPLETED % FINISHED.encode())]
    head = [reply(200, b"", {**described(FINISHED, 8), "x-amz-tagging-count": "0"})]
    upload = replace(UPLOAD, tags="team=a&what%20for=b%20%2B%20c%2F%3Dd")
    with ScriptedServer([[done], [head], [[answer]]]) as server:
        store = store_for(server.url)
        made = store.complete(upload, PARTS, CommitRequest("key"))
        store.close()
    assert made == ObjectVersion("key", FINISHED, 8)
    asked = server.requests[2]
    assert (asked.method, asked.target.partition("?")[2]) == ("PUT", "tagging=")
    assert b"<Key>what for</Key><Value>b + c/=d</Value>" in asked.body
    assert caplog.text.count("tags of changed objects are lost") == told


def test_an_error_inside_a_200_is_an_error() -> None:
    inside = reply(200, b"<Error><Code>InternalError</Code><Message>m</Message></Error>")
    done = reply(200, COMPLETED % FINISHED.encode())
    head = reply(200, b"", described(FINISHED, 8))
    with ScriptedServer([[[inside]], [[done]], [[head]]]) as server:
        assert complete(store_for(server.url)) == ObjectVersion("key", FINISHED, 8)


def test_a_completion_whose_answer_was_lost_is_recognised() -> None:
    gone = error(404, "NoSuchUpload")
    with ScriptedServer(
        [[[hang_up]], [[gone]], [[reply(200, b"", described(FINISHED, 8))]]]
    ) as server:
        assert complete(store_for(server.url)) == ObjectVersion("key", FINISHED, 8)


def test_a_completion_given_up_without_an_answer_is_recognised_the_next_time() -> None:
    head = reply(200, b"", described(FINISHED, 8))
    with ScriptedServer([[[head]]]) as server:
        again = complete(store_for(server.url), Condition(repeated=True))
    assert again == ObjectVersion("key", FINISHED, 8)


def test_a_foreign_object_is_not_taken_for_the_completed_one() -> None:
    gone = error(404, "NoSuchUpload")
    other = f"{'f' * 32}-2"
    with (
        ScriptedServer([[[hang_up]], [[gone]], [[reply(200, b"", described(other, 8))]]]) as server,
        pytest.raises(ObjectMissingError),
    ):
        complete(store_for(server.url))


@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey"])
def test_the_end_of_an_aborted_upload_that_the_store_calls_busy_is_missing_at_once(
    code: str,
) -> None:
    busy, gone = [error(500, "InternalError")], [error(404, code)]
    with (
        ScriptedServer([[busy], [busy], [[reply(404)]], [gone]]) as server,
        pytest.raises(ObjectMissingError, match="NoSuchUpload"),
    ):
        complete(store_for(server.url))
    methods = [seen.method for seen in server.requests]
    assert methods == ["POST", "POST", "HEAD", "GET"]


def test_an_upload_whose_end_was_made_unheard_by_a_store_that_calls_it_busy_is_found() -> None:
    """Whatever its ListParts says: Swift's knows uploads that are complete."""
    busy = [error(500, "InternalError")]
    head = [reply(200, b"", described(FINISHED, 8))]
    with ScriptedServer([[busy], [busy], [head]]) as server:
        assert complete(store_for(server.url)) == ObjectVersion("key", FINISHED, 8)


def test_a_busy_store_that_knows_the_upload_is_asked_again() -> None:
    busy = [error(500, "InternalError")]
    done = [reply(200, COMPLETED % FINISHED.encode())]
    head = [reply(200, b"", described(FINISHED, 8))]
    with ScriptedServer([[busy], [busy], [[reply(404)]], [[reply(200)]], [done], [head]]) as server:
        assert complete(store_for(server.url)).size == 8


def test_an_upload_that_never_was_is_missing() -> None:
    with (
        ScriptedServer([[[error(404, "NoSuchUpload")]]]) as server,
        pytest.raises(ObjectMissingError),
    ):
        complete(store_for(server.url))


def test_a_finished_object_of_the_wrong_size_is_told() -> None:
    done = reply(200, COMPLETED % FINISHED.encode())
    with (
        ScriptedServer([[[done]], [[reply(200, b"", described(FINISHED, 7))]]]) as server,
        pytest.raises(IntegrityError, match="7 bytes instead of 8"),
    ):
        complete(store_for(server.url))


def test_an_answer_cut_off_is_tried_again() -> None:
    cut = reply(200, b"<CompleteMultipartUploadRes")
    done = reply(200, COMPLETED % FINISHED.encode())
    head = reply(200, b"", described(FINISHED, 8))
    with ScriptedServer([[[cut]], [[done]], [[head]]]) as server:
        assert complete(store_for(server.url)).size == 8


def test_an_upload_refused_half_way_tells_the_reason() -> None:
    with (
        ScriptedServer([[[error(403, "QuotaExceeded"), hang_up]]]) as server,
        pytest.raises(QuotaExceededError),
    ):
        put(store_for(server.url))


def test_deleting_what_is_missing_is_no_error_but_a_missing_bucket_is() -> None:
    with ScriptedServer([[[error(404, "NoSuchKey")], [error(404, "NoSuchBucket")]]]) as server:
        store = store_for(server.url)
        store.delete("key")
        with pytest.raises(BucketMissingError):
            store.delete("key")
        store.close()


def test_metadata_that_no_header_can_hold_is_refused() -> None:
    with ScriptedServer([]) as server:
        store = store_for(server.url)
        with pytest.raises(Exception, match="x-amz-meta-evil holds control characters"):
            store.put(CommitRequest("key", {"evil": "a\r\nx-amz-acl: public-read"}), b"")
        store.close()


def test_nothing_is_sent_after_close() -> None:
    with ScriptedServer([]) as server:
        store = store_for(server.url)
        store.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            store.head("key")
