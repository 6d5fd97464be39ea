"""PartsUpload: order, bounds, failures and giving up."""

import threading
from dataclasses import replace

import pytest
import trio
import trio.testing

from ossfs_py.errors import IntegrityError, ObjectMissingError, StoreUnavailableError
from ossfs_py.model import ALWAYS, ByteRange, CommitRequest
from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.upload import PartsUpload
from ossfs_py.writing.uses import Uses
from tests.support.writing import idle, run

REQUEST = CommitRequest("file", {"mode": "33188"}, "text/plain")
DOWN = StoreUnavailableError("down")


def test_nothing_is_asked_of_the_store_before_the_first_part(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        assert not upload.busy
        await upload.settled()
        assert upload.snapshot() is None
        with pytest.raises(RuntimeError):
            await upload.complete(1, ALWAYS)
        upload.abandon()

    assert not run(tmp_path, scenario).store.requests


def test_parts_in_any_order_become_the_object(tmp_path):
    freed = []

    async def scenario(w):
        source = w.store.seed("source", b"abcdefghij")
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(3, b"end", lambda: freed.append(3))
        upload.submit_copy(2, source, ByteRange(2, 8))
        upload.submit(1, b"begin", lambda: freed.append(1))
        assert upload.has(1)
        assert not upload.accepted(1)
        await upload.settled()
        assert upload.accepted(1)
        version = await upload.complete(3, ALWAYS)
        assert await upload.complete(3, ALWAYS) is version
        assert upload.made
        upload.abandon()
        with pytest.raises(RuntimeError, match="over"):
            upload.submit(4, b"x")

    made = run(tmp_path, scenario)
    assert made.store.content("file") == b"begincdefghend"
    assert made.store.metadata("file") == {"mode": "33188"}
    assert sorted(freed) == [1, 3]
    assert made.local_files() == []


def test_no_more_parts_are_under_way_than_allowed(tmp_path):
    running, most = [], []
    lock = threading.Lock()

    def on_request(method, key):
        if method == "upload_part":
            with lock:
                running.append(1)
                most.append(len(running))

    async def scenario(w):
        w.store.on_request = on_request
        gate = w.store.hold("upload_part")
        upload = PartsUpload(w.context, REQUEST)
        for number in range(1, 11):
            upload.submit(number, b"12345")
        while len(running) < 3:
            await trio.testing.wait_all_tasks_blocked()
        assert len(running) == 3
        running.clear()
        gate.set()
        await upload.settled()
        await upload.complete(10, ALWAYS)

    made = run(tmp_path, scenario)
    assert most[2] == 3
    assert made.store.content("file") == b"12345" * 10


def test_a_part_sent_again_while_under_way_counts_with_its_last_bytes(tmp_path):
    freed = []

    async def scenario(w):
        gate = w.store.hold("upload_part")
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"first", lambda: freed.append("first"))
        await until(lambda: w.store.requests["upload_part"] == 1)
        upload.submit(1, b"second", lambda: freed.append("second"))
        upload.submit(1, b"third", lambda: freed.append("third"))
        assert freed == ["second"]
        await trio.testing.wait_all_tasks_blocked()
        assert w.store.requests["upload_part"] == 1
        gate.set()
        await upload.settled()
        await upload.complete(1, ALWAYS)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == b"third"
    assert freed == ["second", "first", "third"]


def test_withdrawn_parts_do_not_count(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        for number in range(1, 5):
            upload.submit(number, b"12345")
        await upload.settled()
        upload.withdraw_from(3)
        assert [upload.has(number) for number in range(1, 5)] == [True, True, False, False]
        await upload.complete(2, ALWAYS)

    assert run(tmp_path, scenario).store.content("file") == b"12345" * 2


def test_a_failed_part_stays_failed_until_it_is_sent_again(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        w.store.fail("upload_part", DOWN)
        upload.submit(1, b"bytes")
        await upload.settled()
        assert upload.failure() is DOWN
        assert upload.failed_numbers == [1]
        assert not upload.has(1)
        with pytest.raises(StoreUnavailableError):
            await upload.complete(1, ALWAYS)
        upload.submit(1, b"bytes")
        await upload.settled()
        assert upload.failure() is None
        await upload.complete(1, ALWAYS)

    assert run(tmp_path, scenario).store.content("file") == b"bytes"


def test_an_upload_that_cannot_begin_fails_its_parts_and_can_be_tried_again(tmp_path):
    freed = []

    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        w.store.fail("start_multipart", DOWN)
        upload.submit(1, b"bytes", lambda: freed.append(1))
        upload.submit(2, b"more", lambda: freed.append(2))
        await upload.settled()
        assert upload.failed_numbers == [1, 2]
        assert freed == [1, 2]
        upload.submit(1, b"bytes")
        upload.submit(2, b"more")
        await upload.settled()
        await upload.complete(2, ALWAYS)

    assert run(tmp_path, scenario).store.content("file") == b"bytesmore"


def test_an_upload_that_cannot_be_journalled_is_not_used(tmp_path, monkeypatch):
    async def scenario(w):
        def record_upload(_upload):
            raise OSError("journal full")

        monkeypatch.setattr(w.journal, "record_upload", record_upload)
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        assert isinstance(upload.failure(), OSError)
        upload.abandon()

    made = run(tmp_path, scenario)
    assert made.store.uploads == {}
    assert not made.store.requests["upload_part"]


def test_the_journal_knows_an_upload_as_long_as_it_exists(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        assert [each.key for each in w.journal.leftover_uploads()] == ["file"]
        await upload.complete(1, ALWAYS)
        assert w.journal.leftover_uploads() == []

    run(tmp_path, scenario)


def test_an_abandoned_upload_is_aborted_after_its_last_part_settled(tmp_path):
    freed = []

    async def scenario(w):
        gate = w.store.hold("upload_part")
        upload = PartsUpload(w.context, REQUEST, hidden=True)
        for number in range(1, 6):
            upload.submit(number, b"12345", lambda: freed.append(1))
        await until(lambda: w.store.requests["upload_part"] == 3)
        upload.abandon()
        upload.abandon()
        assert len(freed) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert not w.store.requests["abort"]
        gate.set()
        await w.context.tidying.settled()

    made = run(tmp_path, scenario)
    assert made.store.log[-1] == ("abort", "file")
    assert made.store.uploads == {}
    assert len(freed) == 5
    assert made.local_files() == []


@pytest.mark.parametrize("fails", [True, False])
def test_an_upload_abandoned_while_it_begins_is_aborted_too(tmp_path, fails):
    async def scenario(w):
        gate = w.store.hold("start_multipart")
        if fails:
            w.store.fail("start_multipart", DOWN)
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await until(lambda: w.store.requests["start_multipart"] == 1)
        upload.abandon()
        gate.set()
        await w.context.tidying.settled()

    made = run(tmp_path, scenario)
    assert made.store.uploads == {}
    assert made.local_files() == []


def test_an_upload_that_cannot_be_aborted_stays_in_the_journal(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        w.store.fail("abort", DOWN)
        upload.abandon()
        await w.context.tidying.settled()
        assert [each.key for each in w.journal.leftover_uploads()] == ["file"]

    run(tmp_path, scenario)


def test_a_kept_upload_is_neither_continued_nor_aborted(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        snapshot = upload.snapshot()
        assert snapshot is not None
        assert [part.number for part in snapshot[1]] == [1]
        upload.keep()
        upload.abandon()
        await idle(w)
        w.store.complete(snapshot[0], snapshot[1], REQUEST)

    assert run(tmp_path, scenario).store.content("file") == b"bytes"


def test_an_upload_kept_before_it_had_an_id_is_aborted(tmp_path):
    async def scenario(w):
        gate = w.store.hold("start_multipart")
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await until(lambda: w.store.requests["start_multipart"] == 1)
        assert upload.snapshot() is None
        upload.keep()
        gate.set()
        await upload.settled()
        await w.context.tidying.settled()

    assert run(tmp_path, scenario).store.uploads == {}


def test_after_the_threads_are_closed_parts_fail_instead_of_crashing_the_loop(tmp_path):
    async def scenario(w):
        context = replace(w.context, network=Workers("own", 1))
        upload = PartsUpload(context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        context.network.close()
        upload.submit(2, b"more")
        assert isinstance(upload.failure(), StoreUnavailableError)
        other = PartsUpload(context, REQUEST)
        other.submit(1, b"bytes")
        assert isinstance(other.failure(), StoreUnavailableError)
        upload.abandon()
        other.abandon()
        await w.context.tidying.settled()
        assert len(w.journal.leftover_uploads()) == 1

    run(tmp_path, scenario)


def test_a_completion_that_is_refused_can_be_repeated(tmp_path):
    async def scenario(w):
        upload = PartsUpload(w.context, REQUEST)
        upload.submit(1, b"bytes")
        await upload.settled()
        w.store.fail("complete", IntegrityError("size"))
        with pytest.raises(IntegrityError):
            await upload.complete(1, ALWAYS)
        assert not upload.gone
        w.store.fail("complete", ObjectMissingError("no such upload"))
        with pytest.raises(ObjectMissingError):
            await upload.complete(1, ALWAYS)
        assert upload.gone
        upload.abandon()

    run(tmp_path, scenario)


def test_a_resource_is_freed_once_after_its_last_use():
    freed = []
    uses = Uses(lambda: freed.append(1))
    uses.enter()
    uses.enter()
    uses.close()
    uses.close()
    assert uses.busy
    assert uses.closed
    uses.leave()
    assert freed == []
    uses.leave()
    assert freed == [1]


async def until(condition):
    while not condition():
        await trio.testing.wait_all_tasks_blocked()
