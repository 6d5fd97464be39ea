"""What is found out of servers that ignore, mistake or refuse, and what is done instead."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ossfs_py.errors import (
    BucketMissingError,
    ConditionFailedError,
    StoreError,
    StoreUnavailableError,
    UnequalPartsError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import (
    ByteRange,
    CommitRequest,
    Condition,
    MultipartUpload,
    ObjectVersion,
    Part,
)
from ossfs_py.store.s3 import probing
from ossfs_py.store.s3.traits import KnownTraits, Traits
from tests.support.scripted_server import ScriptedServer, error, hang_up, reply
from tests.unit.store.quirky import (
    B2,
    CEPH,
    JUICEFS,
    R2,
    RCLONE,
    SWIFT,
    etag_of,
    opened,
    quirky,
    verdicts,
)

ABSENT = Condition(only_if_absent=True)


CREATE, REPLACE, ONE, END, PARTS, PIN = (
    "create-only",
    "replace-only",
    "one creator",
    "at completion",
    "part copies",
    "copy pins",
)
GOOD = {CREATE: "works", REPLACE: "works", END: "works", PARTS: "works", PIN: "works"}


@pytest.mark.parametrize(
    ("quirks", "differs"),
    [
        (frozenset[str](), {}),
        (CEPH, {END: "ignored", PIN: "ignored"}),
        (JUICEFS, {CREATE: "ignored", REPLACE: "ignored", END: None}),
        (SWIFT, {REPLACE: "refused", ONE: "ignored"}),
        ({"if-none-match always fails"}, {CREATE: "refused", END: None}),
        ({"if-none-match refused", "speaks oss"}, {}),
        ({"if-none-match refused"}, {CREATE: "refused", END: None}),
        ({"if-none-match ignored", "speaks oss"}, {}),
        ({"copy pin refused"}, {PIN: "refused"}),
    ],
    ids=lambda value: "+".join(sorted(value)) or "none",
)
def test_each_feature_is_tried_as_it_must_succeed_and_as_it_must_fail(
    quirks: frozenset[str], differs: dict[str, str | None]
) -> None:
    with quirky(quirks) as (url, bucket), opened(url) as store:
        expected = {name: one for name, one in (GOOD | differs).items() if one is not None}
        assert verdicts(store) == expected
        assert (bucket.objects, bucket.uploads) == ({}, {})
        assert all("/bucket/.ossfs-py-probe-" in target for _, target, _ in bucket.requests)


def test_a_store_without_part_copies_is_told_from_one_without_pins() -> None:
    with quirky({"part copies unknown"}) as (url, _), opened(url) as store:
        assert not store.capabilities().part_copy
        assert PIN not in verdicts(store)


def test_an_etag_is_spelled_as_the_store_wants_it() -> None:
    with quirky(CEPH) as (url, bucket), opened(url) as store:
        first = store.put(CommitRequest("key"), b"first")
        known = Condition(only_if_etag=first.etag)
        store.put(CommitRequest("key", condition=known), b"second")
        with pytest.raises(ConditionFailedError):
            store.put(CommitRequest("key", condition=known), b"third")
        assert bucket.objects["key"] == b"second"
        assert bucket.requests[-1][2]["if-match"] == first.etag


def test_no_object_is_put_together_of_two_versions_where_copies_cannot_be_pinned() -> None:
    with quirky(CEPH) as (url, bucket), opened(url) as store:
        old = store.put(CommitRequest("source"), b"old bytes")
        store.capabilities()
        upload = store.start_multipart(CommitRequest("target"))
        store.copy_part(upload, 1, old, ByteRange(0, 3))
        bucket.objects["source"] = b"new bytes"
        with pytest.raises(VersionChangedError):
            store.copy_part(upload, 2, old, ByteRange(3, 9))
        store.abort(upload)


def test_a_store_not_asked_about_its_pins_is_not_trusted_with_them() -> None:
    with quirky(CEPH) as (url, bucket), opened(url, part_copy="on") as store:
        old = ObjectVersion("source", etag_of(b"old"), 3)
        bucket.objects["source"] = b"new"
        upload = store.start_multipart(CommitRequest("target"))
        with pytest.raises(VersionChangedError):
            store.copy_part(upload, 1, old, ByteRange(0, 3))


def test_a_pinned_part_copy_is_one_request() -> None:
    with quirky() as (url, bucket), opened(url) as store:
        source = store.put(CommitRequest("source"), b"bytes")
        store.capabilities()
        upload = store.start_multipart(CommitRequest("target"))
        bucket.requests.clear()
        store.copy_part(upload, 1, source, ByteRange(0, 5))
        assert bucket.methods() == ["PUT"]


def test_copies_go_unpinned_where_the_right_pin_is_refused() -> None:
    with quirky({"copy pin refused"}) as (url, bucket), opened(url) as store:
        source = store.put(CommitRequest("source"), b"bytes")
        store.capabilities()
        assert store.copy(source, "copy").etag == source.etag
        upload = store.start_multipart(CommitRequest("target"))
        store.copy_part(upload, 1, source, ByteRange(0, 2))
        bucket.objects["source"] = b"other"
        with pytest.raises(VersionChangedError):
            store.copy_part(upload, 2, source, ByteRange(2, 5))


def test_an_object_that_cannot_be_copied_whole_is_copied_as_one_part() -> None:
    """Ceph 16 answers 501 to copies of encrypted objects."""
    with quirky({"whole copies refused"}) as (url, bucket), opened(url) as store:
        source = store.put(CommitRequest("source"), b"bytes")
        assert store.copy(source, "copy").size == 5
        assert store.copy(source, "source", metadata={"mode": "33188"}).size == 5
        assert bucket.objects == {"source": b"bytes", "copy": b"bytes"}
        empty = store.put(CommitRequest("empty"), b"")
        with pytest.raises(UnsupportedByStoreError):
            store.copy(empty, "other")
        assert bucket.uploads == {}


@pytest.mark.parametrize("quirks", [CEPH, frozenset[str]()], ids=["ignored", "obeyed"])
def test_a_completion_is_looked_at_beforehand_only_where_its_condition_is_not_obeyed(
    quirks: frozenset[str],
) -> None:
    with quirky(quirks) as (url, bucket), opened(url) as store:
        store.capabilities()
        bucket.objects["key"] = b"here first"
        upload = store.start_multipart(CommitRequest("key"))
        part = store.upload_part(upload, 1, b"later")
        bucket.requests.clear()
        with pytest.raises(ConditionFailedError):
            store.complete(upload, [part], CommitRequest("key", condition=ABSENT))
        assert bucket.methods() == (["HEAD"] if quirks else ["POST"])
        assert bucket.objects["key"] == b"here first"


def test_a_probe_whose_answer_was_lost_does_not_take_its_own_key_for_another_s(
    tmp_path: Path,
) -> None:
    accepted = reply(200, b"", {"etag": '"e"'})
    refused = error(412, "PreconditionFailed")
    head = reply(
        200, b"", {"etag": '"e"', "last-modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, length=1
    )
    second = [[refused], [refused], [head], [refused], [accepted], [reply(204)], [accepted]]
    with ScriptedServer([[[hang_up]], second]) as server:
        KnownTraits(server.url, tmp_path).learn(winners="one")
        with opened(server.url, traits_dir=tmp_path) as store:
            store.put(CommitRequest("key", condition=ABSENT), b"x")
    assert server.requests[-1].headers["if-none-match"] == "*"


# -- checksums ------------------------------------------------------------------------------


def test_refused_checksum_headers_are_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with quirky(B2) as (url, bucket):
        with opened(url, traits_dir=tmp_path) as store:
            store.put(CommitRequest("small"), b"small")
            upload = store.start_multipart(CommitRequest("large"))
            part = store.upload_part(upload, 1, b"large")
            store.complete(upload, [part], CommitRequest("large"))
        assert bucket.objects == {"small": b"small", "large": b"large"}
        assert [method for method, _, _ in bucket.requests[:3]] == ["PUT", "PUT", "POST"]
        told = [record for record in caplog.records if "refuses checksum headers" in record.message]
        assert len(told) == 1
        bucket.requests.clear()
        with opened(url, traits_dir=tmp_path) as store:
            store.put(CommitRequest("small"), b"again")
            assert verdicts(store)["checksums"] == "refused"
        assert bucket.methods()[0] == "PUT"
        assert not any("x-amz-checksum" in name for *_, seen in bucket.requests for name in seen)


def test_a_multipart_upload_may_be_the_first_to_learn_it() -> None:
    with quirky(B2) as (url, bucket), opened(url) as store:
        upload = store.start_multipart(CommitRequest("large"))
        part = store.upload_part(upload, 1, b"large")
        store.complete(upload, [part], CommitRequest("large"))
        assert bucket.objects == {"large": b"large"}


def test_checksums_that_were_asked_for_are_not_left_out() -> None:
    with (
        quirky(B2) as (url, bucket),
        opened(url, checksum="crc32c") as store,
        pytest.raises(StoreError, match="InvalidArgument"),
    ):
        store.put(CommitRequest("small"), b"small")
    assert bucket.methods() == ["PUT"]


def test_another_refusal_is_not_blamed_on_checksums(tmp_path: Path) -> None:
    refusal = error(400, "InvalidArgument")
    accepted = reply(200, b"", {"etag": '"e"'})
    with (
        ScriptedServer([[[refusal], [refusal], [accepted]]]) as server,
        opened(server.url, traits_dir=tmp_path) as store,
    ):
        with pytest.raises(StoreError, match="InvalidArgument"):
            store.put(CommitRequest("key"), b"x")
        store.put(CommitRequest("key"), b"x")
    assert "x-amz-checksum-crc32c" in server.requests[-1].headers
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["BadDigest", "RequestTimeout", "ExpiredToken"])
def test_errors_of_another_meaning_keep_it(code: str) -> None:
    accepted = reply(200, b"", {"etag": '"e"'})
    with (
        ScriptedServer([[[error(400, code)]], [[accepted]]]) as server,
        opened(server.url, retry_budget_seconds=3.0) as store,
    ):
        store.put(CommitRequest("key"), b"x")
    assert "x-amz-checksum-crc32c" in server.requests[1].headers


# -- for a day ------------------------------------------------------------------------------


def test_what_was_found_out_is_known_to_the_next_mount(tmp_path: Path) -> None:
    with quirky(CEPH) as (url, bucket):
        with opened(url, traits_dir=tmp_path / "stores") as store:
            first = store.capabilities()
        bucket.requests.clear()
        with opened(url, traits_dir=tmp_path / "stores", bucket="another") as store:
            again = store.capabilities()
        assert (again, again.features) == (first, first.features)
        assert bucket.requests == []
    (kept,) = (tmp_path / "stores").iterdir()
    assert "secret" not in kept.read_text()


def test_who_asks_afresh_believes_nothing_and_tells_the_others(tmp_path: Path) -> None:
    with quirky() as (url, bucket):
        with opened(url, traits_dir=tmp_path) as store:
            assert verdicts(store)[PIN] == "works"
        bucket.quirks = CEPH
        with opened(url, traits_dir=tmp_path, probe_afresh=True) as store:
            assert verdicts(store)[PIN] == "ignored"
        with opened(url, traits_dir=tmp_path) as store:
            assert verdicts(store)[PIN] == "ignored"


def test_another_endpoint_and_another_day_are_asked_again(tmp_path: Path) -> None:
    now = 1_000_000.0
    KnownTraits("http://a", tmp_path, clock=lambda: now).learn(copies="pinned")
    assert KnownTraits("http://a", tmp_path, clock=lambda: now + 86_000).now.copies == "pinned"
    assert KnownTraits("http://a", tmp_path, clock=lambda: now + 86_400).now == Traits()
    assert KnownTraits("http://a", tmp_path, clock=lambda: now - 1).now == Traits()
    assert KnownTraits("http://b", tmp_path, clock=lambda: now).now == Traits()


def test_what_is_learnt_later_does_not_make_the_rest_younger(tmp_path: Path) -> None:
    KnownTraits("http://a", tmp_path, clock=lambda: 0.0).learn(copies="pinned")
    KnownTraits("http://a", tmp_path, clock=lambda: 80_000.0).learn(create="http")
    assert KnownTraits("http://a", tmp_path, clock=lambda: 90_000.0).now == Traits()


@pytest.mark.parametrize("change", ["", "{", "[]", '{"format": 1}', "null", "\0", "9" * 5000])
def test_a_damaged_file_is_none(tmp_path: Path, change: str) -> None:
    KnownTraits("http://a", tmp_path).learn(copies="pinned")
    (file,) = tmp_path.iterdir()
    file.write_text(change)
    assert KnownTraits("http://a", tmp_path).now == Traits()


def test_a_value_from_another_time_is_not_believed(tmp_path: Path) -> None:
    KnownTraits("http://a", tmp_path).learn(copies="pinned", create="http")
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    content["traits"] |= {"copies": "perfectly", "unheard": "of", "create": ["http"]}
    file.write_text(json.dumps(content))
    assert KnownTraits("http://a", tmp_path).now == Traits()


def test_a_directory_that_cannot_be_used_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = KnownTraits("http://a", tmp_path / "file")
    known.learn(copies="pinned")
    assert known.now.copies == "pinned"


def test_what_a_store_in_trouble_answers_is_not_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    busy = error(503, "SlowDown")
    with (
        ScriptedServer([[[busy]] * 1] * 60) as server,
        opened(server.url, traits_dir=tmp_path, retry_budget_seconds=0.2) as store,
        pytest.raises(StoreUnavailableError),
    ):
        store.put(CommitRequest("key", condition=ABSENT), b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_comes_back_is_asked_what_it_can_do() -> None:
    with quirky({"no bucket"}) as (url, bucket), opened(url) as store:
        with pytest.raises(BucketMissingError):
            store.put(CommitRequest("key", condition=ABSENT), b"x")
        bucket.quirks = frozenset()
        bucket.requests.clear()
        store.put(CommitRequest("key", condition=ABSENT), b"x")
        (sent,) = [headers for _, path, headers in bucket.requests if path.endswith("/key")]
        assert "if-none-match" in sent, "a HEAD before it would leave a moment to others"


@pytest.mark.parametrize(("quirks", "verdict"), [(R2, "refused"), (frozenset[str](), "works")])
def test_whether_parts_may_differ_in_size_is_tried_for_a_doctor_only(
    quirks: frozenset[str], verdict: str
) -> None:
    with quirky(quirks) as (url, bucket), opened(url) as store:
        assert "part sizes" not in verdicts(store), "10 MiB are not sent by every mount"
        found = {one.name: one for one in store.capabilities(thorough=True).features}
        assert found["part sizes"].verdict == verdict
        assert ("one size" in found["part sizes"].instead) == (verdict == "refused")
        assert store.equal_parts == (verdict == "refused")
        assert (bucket.objects, bucket.uploads) == ({}, {})


def test_a_store_that_wants_equal_parts_is_known_by_its_first_refusal(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with quirky(R2) as (url, _):
        with opened(url, traits_dir=tmp_path) as store:
            assert not store.equal_parts
            for _ in range(2):
                upload = store.start_multipart(CommitRequest("key"))
                parts = [store.upload_part(upload, n, b"x" * n) for n in (1, 2, 3)]
                with pytest.raises(UnequalPartsError):
                    store.complete(upload, parts, CommitRequest("key"))
            assert store.equal_parts
        told = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert [one.getMessage() for one in told] == [
            "this store wants parts of one size: uploads are cut that way"
        ]
        with opened(url, traits_dir=tmp_path) as again:
            assert again.equal_parts


def test_a_part_that_is_not_there_says_nothing_about_sizes() -> None:
    said = b"<Message>One or more of the specified parts could not be found.</Message>"
    missing = reply(400, b"<Error><Code>InvalidPart</Code>" + said + b"</Error>")
    with (
        ScriptedServer([[[missing]]]) as server,
        opened(server.url, conditional_writes="off") as store,
        pytest.raises(StoreError),
    ):
        parts = [Part(1, "a", 5), Part(2, "b", 6)]
        store.complete(MultipartUpload("key", "id"), parts, CommitRequest("key"))
    assert not store.equal_parts


def test_cloudflare_is_known_by_its_name() -> None:
    with opened("https://account.r2.cloudflarestorage.com") as store:
        assert store.equal_parts


def test_two_winners_of_one_key_are_told_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with quirky(SWIFT) as (url, _):
        for _ in range(2):
            with opened(url, traits_dir=tmp_path) as store:
                store.put(CommitRequest("key", condition=ABSENT), b"x")
                store.delete("key")
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [one for one in told if "O_EXCL" in one] == told[:1]


@pytest.mark.timeout(60)
def test_a_daemon_that_ends_while_winners_are_counted_is_not_held_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python begins no thread any more when it ends, and waits for those that there are."""
    begun: list[object] = []

    class Ending(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            if self in begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            begun.append(self)
            return super().submit(*args, **kwargs)

    monkeypatch.setattr(probing, "ThreadPoolExecutor", Ending)
    with quirky(SWIFT) as (url, _), opened(url, traits_dir=tmp_path) as store:
        store.put(CommitRequest("key", condition=ABSENT), b"x")
    assert begun


def test_a_marker_that_would_become_a_file_is_not_written(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with quirky(RCLONE) as (url, bucket), opened(url, traits_dir=tmp_path) as store:
        for _ in range(2):
            with pytest.raises(UnsupportedByStoreError, match="a file of it"):
                store.put(CommitRequest("directory/"), b"")
        assert bucket.objects == {}
        assert store.put(CommitRequest("directory/file"), b"x").size == 1
        assert verdicts(store)["directories"] == "refused"
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len([one for one in told if "empty directories" in one]) == 1


def test_a_marker_is_tried_out_once_for_an_endpoint(tmp_path: Path) -> None:
    with quirky() as (url, bucket):
        for _ in range(2):
            with opened(url, traits_dir=tmp_path) as store:
                store.put(CommitRequest("directory/"), b"")
                store.put(CommitRequest("directory/below/"), b"")
        assert sorted(bucket.objects) == ["directory/", "directory/below/"]
        assert bucket.methods() == ["PUT", "HEAD", "DELETE", "DELETE", *["PUT"] * 4]
