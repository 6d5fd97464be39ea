"""Content that the store has under another name: copied if its ETag proves it, sent otherwise."""

import hashlib
from itertools import pairwise

import pytest

from ossfs_py.errors import ConditionFailedError, StoreError, StoreUnavailableError
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.store.base import Capabilities
from ossfs_py.writing.parts import PartLimits
from ossfs_py.writing.twins import EtagDigest, possible_cuts
from tests.support.fake_store import FakeStore
from tests.support.hashing_store import HashingStore, md5
from tests.support.writing import BOTH, TINY_PARTS, Commits, idle, pattern, run

MIB = 1024**2
SIZE = 100
"""Some parts of the tiny limits."""


def stored(store: FakeStore, content: bytes, key: str = "other") -> ObjectVersion:
    """Another object, sent whole."""
    return store.put(CommitRequest(key, {"whose": "other"}, "text/plain"), content)


async def write(w, content: bytes, beside: tuple[ObjectVersion, ...], *, memory_first=False):
    file = w.open(memory_first=memory_first, committer=Commits(beside=beside))
    for start in range(0, len(content), 10):
        await file.write(start, content[start : start + 10])
    return file


@pytest.mark.parametrize("size", [1, 8 * MIB, 8 * MIB + 1, 20 * MIB, 200 * MIB])
def test_the_etag_of_an_object_in_parts_is_told_from_its_bytes(size):
    """As S3, boto3 (parts of 8 MiB) and our own copies make them."""
    limits = PartLimits()
    count = -(-size // (8 * MIB))
    (cut, *_others) = possible_cuts(f"{0:032x}-{count}", size, limits)
    assert cut[0].start == 0
    assert cut[-1].end == size
    assert all(one.end == two.start for one, two in pairwise(cut))
    assert {span.size for span in cut[:-1]} <= {8 * MIB}


def test_an_etag_is_made_of_pieces_of_any_length():
    content = pattern(SIZE)
    (cut,) = possible_cuts(f"{0:032x}-13", SIZE, TINY_PARTS)
    expected = hashlib.md5(b"".join(md5(content[span.start : span.end]) for span in cut))
    for step in (1, 7, 8, 33, SIZE):
        parts, whole = EtagDigest(cut), EtagDigest(())
        for start in range(0, SIZE, step):
            parts.update(content[start : start + step])
            whole.update(content[start : start + step])
        assert parts.etag() == f"{expected.hexdigest()}-13"
        assert whole.etag() == md5(content).hex()


@pytest.mark.parametrize(
    "etag", ["", "0x8D", f"{0:032x}-", f"{0:032x}-12", f"{0:032x}-0", f"{0:032X}A", "g" * 32]
)
def test_an_etag_of_another_kind_says_nothing_of_bytes(etag):
    assert possible_cuts(etag, SIZE, TINY_PARTS) == []


@BOTH
def test_equal_bytes_are_copied_and_described_by_the_writer(tmp_path, memory_first):
    """From what was sent whole, and from what that became: a copy in parts."""
    content = pattern(8 if memory_first else SIZE)  # from memory, as long as no part has left

    async def scenario(w):
        twin = stored(w.store, content)
        sent = w.store.bytes_written
        for key in ("one", "two"):
            file = await write(w, content, (twin,), memory_first=memory_first)
            twin = await file.commit(CommitRequest(key, {"whose": key}, "image/png"))
            assert w.store.bytes_written == sent
            assert w.store.content(key) == content
            info = w.store.objects[key].info
            assert (info.metadata, info.content_type) == ({"whose": key}, "image/png")
            assert not file.dirty
            assert bytes(await file.read(0, SIZE)) == content
        assert "-" in twin.etag

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


def test_what_was_sent_in_parts_is_known_by_them(tmp_path):
    content = pattern(SIZE)

    async def scenario(w):
        twin = await (await write(w, content, ())).commit(CommitRequest("other"))
        sent = w.store.bytes_written
        made = await (await write(w, content, (twin,))).commit(CommitRequest("file"))
        assert (made.etag, w.store.bytes_written) == (twin.etag, sent)
        assert w.store.content("file") == content

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


@pytest.mark.parametrize("etag", ["same", f"{0:032x}", f"{0:032x}-13", "0x8DC"])
def test_other_bytes_of_one_size_are_sent(tmp_path, etag):
    """Whatever the ETag, as one of SSE-KMS looks like an MD5."""
    content = pattern(SIZE)

    async def scenario(w):
        other = stored(w.store, pattern(SIZE, seed=2))
        if etag != "same":
            other = ObjectVersion("other", etag, SIZE)
        file = await write(w, content, (other,))
        await file.commit(CommitRequest("file"))
        assert w.store.content("file") == content
        assert w.store.requests["copy_part"] == 0

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


def replaced(store):
    stored(store, pattern(SIZE, seed=3))


def refused(method):
    return lambda store: store.fail(method, StoreError("not today", operation=method))


def unreachable(store):
    store.fail("copy_part", StoreUnavailableError("gone", operation="UploadPartCopy"))


def without_part_copy(store):
    store._capabilities = Capabilities(
        conditional_create=True, conditional_replace=True, part_copy=False
    )


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(replaced, id="replaced"),
        pytest.param(lambda store: store.erase("other"), id="removed"),
        pytest.param(refused("start_multipart"), id="start"),
        pytest.param(refused("copy_part"), id="copy"),
        pytest.param(refused("complete"), id="complete"),
        pytest.param(unreachable, id="unreachable"),
        pytest.param(without_part_copy, id="no part copy"),
    ],
)
def test_what_cannot_be_copied_is_sent(tmp_path, trouble):
    content = pattern(SIZE)

    async def scenario(w):
        twin = stored(w.store, content)
        file = await write(w, content, (twin,))
        trouble(w.store)
        await file.commit(CommitRequest("file", {"whose": "file"}))
        assert w.store.content("file") == content
        assert w.store.metadata("file") == {"whose": "file"}
        await w.context.tidying.settled()
        assert all(upload.result for upload in w.store.uploads.values())

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


def test_a_copy_is_made_on_the_writers_condition(tmp_path):
    content = pattern(SIZE)

    async def scenario(w):
        twin = stored(w.store, content)
        stored(w.store, b"somebody was faster", "file")
        file = await write(w, content, (twin,))
        sent = w.store.bytes_written
        with pytest.raises(ConditionFailedError):
            await file.commit(CommitRequest("file", condition=Condition(only_if_absent=True)))
        assert (w.store.bytes_written, file.dirty) == (sent, True)
        assert w.store.content("file") == b"somebody was faster"

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


def test_parts_leave_early_once_the_file_is_longer_than_all_it_could_equal(tmp_path):
    async def scenario(w):
        twin = stored(w.store, pattern(50))
        file = await write(w, pattern(50), (twin,))
        assert w.store.requests["upload_part"] == 0
        await file.write(50, pattern(10))
        await idle(w)
        assert w.store.requests["upload_part"] == 7
        await file.commit(CommitRequest("file"))
        assert w.store.content("file") == pattern(50) + pattern(10)

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))


def test_what_streams_from_memory_or_changes_an_object_is_not_compared(tmp_path, caplog):
    content = pattern(SIZE)
    caplog.set_level("INFO", "ossfs_py.writing.twins")

    async def scenario(w):
        twin = stored(w.store, content)
        streamed = await write(w, content, (twin,), memory_first=True)
        await streamed.commit(CommitRequest("file"))
        assert w.store.requests["copy_part"] == 0
        changed = w.open(streamed.seen, memory_first=False, committer=Commits(beside=(twin,)))
        await changed.write(0, content[:1])
        await changed.commit(CommitRequest("file"))
        assert w.store.content("file") == content

    run(tmp_path, scenario, store=HashingStore(min_part_bytes=5))
    assert not caplog.records  # each comparison that ends in a copy, or in none, says so
