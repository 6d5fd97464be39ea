"""Copies on the server, against servers that answer as a script says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ossfs_py.errors import (
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import ByteRange, MultipartUpload, ObjectVersion, Part
from ossfs_py.store.base import ObjectStore
from tests.support.scripted_server import (
    ETAG,
    ScriptedServer,
    Step,
    error,
    hang_up,
    reply,
    store_for,
)

SOURCE = ObjectVersion("a b/\u6a21+\u578b%", ETAG, 9)
SOURCE_NAMED = "bucket/a%20b/%E6%A8%A1%2B%E5%9E%8B%25"
UPLOAD = MultipartUpload("key", "id 1")
SPAN = ByteRange(5, 9)


def copied(etag: str = ETAG) -> Step:
    body = f"<CopyObjectResult><ETag>&quot;{etag}&quot;</ETag></CopyObjectResult>"
    return reply(200, body.encode())


def part_copied(etag: str = ETAG, more: str = "") -> Step:
    body = f"<CopyPartResult><ETag>&quot;{etag}&quot;</ETag>{more}</CopyPartResult>"
    return reply(200, body.encode())


def described(etag: str, size: int, **more: str) -> Step:
    headers = {"etag": f'"{etag}"', "last-modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
    names = {name.replace("_", "-"): value for name, value in more.items()}
    return reply(200, b"", {**headers, **names}, length=size)


@contextmanager
def opened(server: ScriptedServer, **options: object) -> Iterator[ObjectStore]:
    store = store_for(server.url, **options)
    try:
        yield store
    finally:
        store.close()


def test_a_copy_is_waited_for_as_long_as_all_that_may_be_under_way_take() -> None:
    """The store shares its disks among them: what is asked for again comes on top."""
    size = 4_500_000  # a tenth of a second by itself
    late = lambda _peer: time.sleep(0.8)  # noqa: E731 - a step of the script
    source = ObjectVersion("large", ETAG, size)
    part_of_it = ByteRange(0, size)
    turns = [[late, copied()], [late, part_copied()], [described(ETAG, size)]]
    with ScriptedServer([turns]) as server:
        with opened(server, stall_timeout_seconds=0.25, concurrency=16, part_copy="on") as store:
            assert store.copy(source, "key") == ObjectVersion("key", ETAG, size)
            assert store.copy_part(UPLOAD, 1, source, part_of_it).size == size
        asked = [seen for seen in server.requests if seen.method == "PUT"]
        assert len(asked) == 2


def test_a_copy_names_its_source_and_the_version_of_it() -> None:
    with ScriptedServer([[[copied()]]]) as server, opened(server) as store:
        assert store.copy(SOURCE, "key") == ObjectVersion("key", ETAG, 9)
    (seen,) = server.requests
    assert (seen.method, seen.target, seen.body) == ("PUT", "/bucket/key", b"")
    assert seen.headers["x-amz-copy-source"] == SOURCE_NAMED
    assert seen.headers["x-amz-copy-source-if-match"] == f'"{ETAG}"'
    assert seen.headers["content-length"] == "0"
    assert not [name for name in seen.headers if "meta" in name or "type" in name]


def test_a_copy_with_new_metadata_says_again_what_it_would_lose() -> None:
    head = described(
        ETAG,
        9,
        cache_control="max-age=5",
        expires="whenever",
        content_type="a/b",
        x_amz_storage_class="STANDARD_IA",
        x_amz_server_side_encryption="AES256",
        x_amz_website_redirect_location="/there",
    )
    with (
        ScriptedServer([[[head], [copied()]]]) as server,
        opened(server, storage_class="REDUCED_REDUNDANCY") as store,
    ):
        store.copy(SOURCE, "key", metadata={"mode": "33188"})
    headers = server.requests[1].headers
    said = {
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-meta-mode": "33188",
        "cache-control": "max-age=5",
        "expires": "whenever",
        "content-type": "a/b",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-website-redirect-location": "/there",
    }
    assert said.items() <= headers.items()


@pytest.mark.parametrize("kept", [True, False])
def test_tags_that_a_store_drops_with_new_metadata_are_given_back(kept: bool) -> None:
    """Ceph does. One that keeps them is asked once."""
    tags = b"<Tagging><TagSet><Tag><Key>team</Key><Value>a b</Value></Tag></TagSet></Tagging>"
    tagged = {"x-amz-tagging-count": "1", "content-type": "text/plain"}
    before, bare = (
        described(ETAG, 9, **(tagged | more)) for more in ({}, {"x-amz-tagging-count": "0"})
    )
    first = [[before], [reply(200, tags)], [copied()], [before if kept else bare]]
    then = [[before], [copied()]] if kept else [[reply(200)]]
    with ScriptedServer([first + then]) as server, opened(server) as store:
        store.copy(SOURCE, "key", metadata={"own": "new"})
        if kept:
            store.copy(SOURCE, "key", metadata={"own": "newer"})
    seen = [f"{one.method}{'?' if 'tagging' in one.target else ''}" for one in server.requests]
    assert seen == ["HEAD", "GET?", "PUT", "HEAD", *(["HEAD", "PUT"] if kept else ["PUT?"])]


def test_a_copy_that_fails_inside_a_200_is_tried_again() -> None:
    inside = reply(200, b"<Error><Code>InternalError</Code><Message>m</Message></Error>")
    with ScriptedServer([[[inside]], [[copied()]]]) as server, opened(server) as store:
        assert store.copy(SOURCE, "key").etag == ETAG


def test_an_error_of_no_second_try_inside_a_200_is_that_error() -> None:
    inside = reply(200, b"<Error><Code>NoSuchKey</Code></Error>")
    with (
        ScriptedServer([[[inside]]]) as server,
        opened(server) as store,
        pytest.raises(ObjectMissingError),
    ):
        store.copy(SOURCE, "key")


def test_a_page_that_is_no_answer_to_a_copy_is_none() -> None:
    page = reply(200, b"<html><body>Log in</body></html>")
    with (
        ScriptedServer([[[page]]] * 50) as server,
        opened(server, retry_budget_seconds=0.5) as store,
        pytest.raises(StoreUnavailableError, match="none to CopyObject"),
    ):
        store.copy(SOURCE, "key")


def test_a_copy_of_a_changed_source_is_found_out_even_if_the_store_does_not_care() -> None:
    with (
        ScriptedServer([[[copied("c" * 32)], [described("f" * 32, 9)]]]) as server,
        opened(server) as store,
        pytest.raises(VersionChangedError),
    ):
        store.copy(SOURCE, "key")


def test_a_copy_whose_answer_says_nothing_is_looked_at() -> None:
    script = [[reply(200)], [described("c" * 32, 9)], [described(ETAG, 9)]]
    with ScriptedServer([script]) as server, opened(server) as store:
        assert store.copy(SOURCE, "key") == ObjectVersion("key", "c" * 32, 9)
    assert [seen.method for seen in server.requests] == ["PUT", "HEAD", "HEAD"]


def test_an_old_object_is_not_taken_for_the_copy_that_nobody_confirmed() -> None:
    script = [[reply(200)], [described("c" * 32, 4)], [described(ETAG, 9)]]
    with ScriptedServer([script, [[copied()]]]) as server, opened(server) as store:
        assert store.copy(SOURCE, "key") == ObjectVersion("key", ETAG, 9)


def test_a_copy_onto_itself_whose_answer_was_lost_is_recognised_by_its_metadata() -> None:
    key = SOURCE.key
    mine = described("d" * 32, 9, x_amz_meta_new="2")
    scripts = [[[described(ETAG, 9)], [hang_up]], [[error(412, "PreconditionFailed")]], [[mine]]]
    with ScriptedServer(scripts) as server, opened(server) as store:
        assert store.copy(SOURCE, key, metadata={"new": "2"}) == ObjectVersion(key, "d" * 32, 9)


def test_a_part_is_copied_from_a_range_of_a_version() -> None:
    answer = part_copied("p", "<ChecksumCRC32C>yZRlqg==</ChecksumCRC32C>")
    script = [[answer], [described(ETAG, 9)]]
    with ScriptedServer([script]) as server, opened(server) as store:
        assert store.copy_part(UPLOAD, 3, SOURCE, SPAN) == Part(3, "p", 4, "yZRlqg==")
    seen, _ = server.requests
    assert (seen.method, seen.target) == ("PUT", "/bucket/key?partNumber=3&uploadId=id%201")
    assert seen.headers["x-amz-copy-source"] == SOURCE_NAMED
    assert seen.headers["x-amz-copy-source-range"] == "bytes=5-8"
    assert seen.headers["x-amz-copy-source-if-match"] == f'"{ETAG}"'


def test_a_part_copy_of_a_changed_source_is_refused() -> None:
    with (
        ScriptedServer([[[error(412, "PreconditionFailed")]]]) as server,
        opened(server) as store,
        pytest.raises(VersionChangedError),
    ):
        store.copy_part(UPLOAD, 1, SOURCE, SPAN)


@pytest.mark.parametrize(("status", "code"), [(416, "InvalidRange"), (400, "InvalidArgument")])
def test_a_part_copy_past_the_end_of_what_became_shorter_is_a_changed_source(
    status: int, code: str
) -> None:
    script = [[error(status, code)], [described("f" * 32, 4)]]
    with (
        ScriptedServer([script]) as server,
        opened(server) as store,
        pytest.raises(VersionChangedError),
    ):
        store.copy_part(UPLOAD, 1, SOURCE, SPAN)


def test_a_part_copy_that_is_refused_for_another_reason_says_it() -> None:
    script = [[error(400, "InvalidArgument")], [described(ETAG, 9)]]
    with (
        ScriptedServer([script]) as server,
        opened(server) as store,
        pytest.raises(StoreError, match="InvalidArgument"),
    ):
        store.copy_part(UPLOAD, 1, SOURCE, SPAN)


def test_a_store_that_answers_a_part_copy_with_nothing_knows_none() -> None:
    with (
        ScriptedServer([[[reply(200)]]]) as server,
        opened(server) as store,
        pytest.raises(UnsupportedByStoreError),
    ):
        store.copy_part(UPLOAD, 1, SOURCE, SPAN)


def test_an_upload_is_aborted_once_and_an_unknown_one_is_no_error() -> None:
    script = [[reply(204)], [error(404, "NoSuchUpload")], [error(403, "AccessDenied")]]
    with ScriptedServer([script]) as server, opened(server) as store:
        store.abort(UPLOAD)
        store.abort(UPLOAD)
        with pytest.raises(StoreError, match="AccessDenied"):
            store.abort(UPLOAD)
    targets = [(seen.method, seen.target) for seen in server.requests]
    assert targets == [("DELETE", "/bucket/key?uploadId=id%201")] * 3
