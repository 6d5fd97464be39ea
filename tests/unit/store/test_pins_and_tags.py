"""Reads and tags on servers whose answers cannot be taken at their word."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ossfs_py.errors import ObjectMissingError, VersionChangedError
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.store.base import ObjectStore
from tests.unit.store.quirky import (
    LOCALSTACK,
    MINIO,
    MINIO_FRONT_END,
    RCLONE,
    Bucket,
    opened,
    quirky,
    verdicts,
)

READS, TAGS = "read pins", "tag counts"


def read(store: ObjectStore, version: ObjectVersion) -> bytes:
    buffer = bytearray(version.size)
    store.get_range_into(version, 0, memoryview(buffer))
    return bytes(buffer)


def asked(bucket: Bucket) -> list[str]:
    """The requests since the last look; a probe of reads comes at any time beside them."""
    wrong = f'"{"0" * 32}"'
    sent = [
        "probe" if headers.get("if-match") == wrong else method
        for method, _, headers in bucket.requests
    ]
    bucket.requests.clear()
    return sorted(sent)


def test_a_store_whose_reads_are_pinned_is_asked_once_a_day(tmp_path: Path) -> None:
    with quirky() as (url, bucket):
        with opened(url, conditional_reads="auto", traits_dir=tmp_path) as store:
            version = store.put(CommitRequest("key"), b"content")
            bucket.requests.clear()
            assert read(store, version) == b"content"
            assert asked(bucket) == ["GET", "probe"]
            assert read(store, version) == b"content"
            assert asked(bucket) == ["GET"]
        with opened(url, conditional_reads="auto", traits_dir=tmp_path) as store:
            assert read(store, version) == b"content"
            assert asked(bucket) == ["GET"]
            assert verdicts(store)[READS] == "works"


def test_a_store_that_ignores_the_condition_of_a_read_is_looked_at_after_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with quirky(RCLONE) as (url, bucket):
        for expected in (["GET", "HEAD", "probe"], ["GET", "HEAD"]):
            with opened(url, conditional_reads="auto", traits_dir=tmp_path) as store:
                version = store.put(CommitRequest("key"), b"content")
                bucket.requests.clear()
                assert read(store, version) == b"content"
                assert asked(bucket) == expected
        assert [one.levelno for one in caplog.records].count(logging.WARNING) == 1
        with opened(url, traits_dir=tmp_path) as store:
            assert verdicts(store)[READS] == "ignored"


@pytest.mark.parametrize("choice", ["auto", "off"])
@pytest.mark.parametrize("quirks", [RCLONE, MINIO_FRONT_END], ids=["rclone", "JuiceFS"])
def test_bytes_of_another_version_under_the_right_etag_reach_nobody(
    quirks: frozenset[str], choice: str
) -> None:
    """An object is replaced after its ETag was looked up and before its bytes are sent."""
    with quirky(quirks) as (url, bucket), opened(url, conditional_reads=choice) as store:
        for number in range(2):
            version = store.put(CommitRequest("key"), b"old %d" % number)
            bucket.told_of_reads["key"] = version.etag
            bucket.replaced_while_read["key"] = b"new %d" % number
            with pytest.raises(VersionChangedError):
                read(store, version)


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [(MINIO_FRONT_END, ["GET", "HEAD", "probe"]), (MINIO, ["GET", "probe"])],
    ids=["a gateway", "MinIO"],
)
def test_a_gateway_that_looks_before_it_opens_is_looked_at_after_each_read(
    quirks: frozenset[str], expected: list[str], tmp_path: Path
) -> None:
    """JuiceFS's refuses a read of a wrong version, and gives bytes of the next one by chance."""
    with (
        quirky(quirks) as (url, bucket),
        opened(url, conditional_reads="auto", traits_dir=tmp_path) as store,
    ):
        version = store.put(CommitRequest("key"), b"content")
        bucket.requests.clear()
        assert read(store, version) == b"content"
        assert asked(bucket) == expected
        assert verdicts(store)[READS] == ("ignored" if "HEAD" in expected else "works")


def test_a_store_that_is_said_to_pin_reads_is_not_asked() -> None:
    with quirky(RCLONE) as (url, bucket), opened(url, conditional_reads="on") as store:
        version = store.put(CommitRequest("key"), b"content")
        bucket.requests.clear()
        read(store, version)
        assert asked(bucket) == ["GET"]


def test_reads_that_cannot_be_tried_are_looked_at_and_tried_a_few_times(tmp_path: Path) -> None:
    with (
        quirky({"wrong reads fail"}) as (url, bucket),
        opened(url, conditional_reads="auto", traits_dir=tmp_path) as store,
    ):
        version = store.put(CommitRequest("key"), b"content")
        bucket.requests.clear()
        for _ in range(3):
            read(store, version)
            assert asked(bucket) == ["GET", "HEAD", "probe"]
        read(store, version)
        assert asked(bucket) == ["GET", "HEAD"]


def test_a_version_named_by_its_id_never_changes_so_nobody_asks() -> None:
    with quirky(RCLONE) as (url, bucket), opened(url, conditional_reads="auto") as store:
        plain = store.put(CommitRequest("key"), b"content")
        bucket.requests.clear()
        read(store, ObjectVersion("key", plain.etag, plain.size, "1"))
        assert asked(bucket) == ["GET"]


# -- tags -----------------------------------------------------------------------------------


def rewrite(store: ObjectStore, bucket: Bucket) -> list[str]:
    """Put a tagged object, and write it anew; which requests that took."""
    bucket.objects["key"], bucket.tags["key"] = b"old", "team=a"
    like = store.head("key")
    bucket.requests.clear()
    store.put(CommitRequest("key", like=like), b"new")
    return asked(bucket)


def test_tags_that_no_head_tells_of_are_asked_for_before_an_object_is_written_anew(
    tmp_path: Path,
) -> None:
    with quirky(LOCALSTACK) as (url, bucket):
        with opened(url, traits_dir=tmp_path) as store:
            rewrite(store, bucket)
            assert bucket.tags["key"] == "team=a"
            assert verdicts(store)[TAGS] == "ignored"
        with opened(url, traits_dir=tmp_path) as store:
            assert rewrite(store, bucket) == ["GET", "PUT"]
            assert bucket.tags["key"] == "team=a"
            upload = store.start_multipart(CommitRequest("key", like=store.head("key")))
            assert upload.tags == "team=a"


@pytest.mark.parametrize(("quirks", "verdict"), [(frozenset[str](), "works"), ({"no tags"}, None)])
def test_no_tags_are_asked_for_where_a_head_tells_of_them_or_there_are_none(
    quirks: frozenset[str], verdict: str | None, tmp_path: Path
) -> None:
    with quirky(quirks) as (url, bucket):
        for times in range(2):
            with opened(url, traits_dir=tmp_path) as store:
                bucket.objects["key"] = b"old"
                like = store.head("key")
                bucket.requests.clear()
                store.put(CommitRequest("key", like=like), b"new")
                assert times == 0 or asked(bucket) == ["PUT"]
                assert verdicts(store).get(TAGS) == verdict
        assert set(bucket.objects) == {"key"}


def test_who_may_not_write_tags_is_not_asked_for_them_again() -> None:
    with quirky({"tagging denied"}) as (url, bucket), opened(url) as store:
        for expected in (["DELETE", "PUT", "PUT"], ["PUT"]):
            bucket.objects["key"] = b"old"
            like = store.head("key")
            bucket.requests.clear()
            store.put(CommitRequest("key", like=like), b"new")
            assert asked(bucket) == expected


# -- completions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "quirks", "is_found"),
    [
        ({"mode": "33188"}, {"etags know no parts"}, True),
        ({"mode": "33188"}, frozenset[str](), False),
        ({"mode": "33024"}, {"etags know no parts"}, False),
    ],
    ids=["alike", "of another kind", "another"],
)
def test_an_upload_completed_unheard_is_known_by_its_description_where_etags_know_no_parts(
    said: dict[str, str], quirks: frozenset[str], is_found: bool
) -> None:
    """The answer to the completion is lost, and the repeat is told that there is no such upload."""
    with quirky(quirks) as (url, bucket), opened(url) as store:
        request = CommitRequest("key", {"mode": "33188"})
        upload = store.start_multipart(request)
        part = store.upload_part(upload, 1, b"content")
        bucket.completions_lost = 1
        bucket.metadata["key"] = said
        if is_found:
            assert store.complete(upload, [part], request).size == 7
        else:
            with pytest.raises(ObjectMissingError):
                store.complete(upload, [part], request)


def test_readers_that_end_together_share_a_look_that_began_after_all_of_them() -> None:
    with quirky(RCLONE) as (url, bucket), opened(url, conditional_reads="off") as store:
        version = store.put(CommitRequest("key"), b"content")
        bucket.requests.clear()
        with ThreadPoolExecutor(16) as threads:
            assert set(threads.map(lambda _: read(store, version), range(160))) == {b"content"}
        sent = asked(bucket)
        assert sent.count("GET") == 160
        assert 1 <= sent.count("HEAD") < 160
        bucket.objects["key"] = b"another"
        bucket.told_of_reads["key"] = version.etag
        with ThreadPoolExecutor(16) as threads:
            failures = list(threads.map(lambda _: failure_of(store, version), range(32)))
        assert set(failures) == {VersionChangedError}


def failure_of(store: ObjectStore, version: ObjectVersion) -> type[Exception] | None:
    try:
        read(store, version)
    except VersionChangedError as exc:
        return type(exc)
    return None
