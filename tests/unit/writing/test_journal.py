"""The state directory: what a crash leaves, and what is not left."""

import json
import os
import stat
import uuid

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, CommitRequest, MultipartUpload, ObjectVersion, Part
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.records import DirtyRecord, RecordDamagedError, SentParts
from ossfs_py.writing.segments import EntryKind
from ossfs_py.writing.stagelog import truncated_entry, written_entry

BASE = ObjectVersion("dir/file", "etag", 100)
RECORD = DirtyRecord.of("someid", CommitRequest("dir/file", {"mode": "33188"}, "text/plain"))
FULL = RECORD.replaced(
    base=BASE,
    base_valid=90,
    size=120,
    dirty=ExtentSet([ByteRange(5, 10), ByteRange(90, 120)]),
    log="someid.1.log",
    sent=SentParts(MultipartUpload("dir/file", "id"), (Part(1, "e1", 8),), (8, 16, 20)),
    scratch=True,
    reason="disk full",
)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "state")
    yield journal
    journal.close()


def crashed(journal):
    """The journal of the next mount."""
    journal.close()
    journal._lock_fd = os.open("/dev/null", os.O_RDONLY)
    return Journal(journal.directory)


def staged(journal, data, record=RECORD):
    file = journal.create_staging()
    os.pwrite(file.fd, data, 0)
    os.close(file.fd)
    if record is not None:
        journal.write_record(record.replaced(ident=file.ident))
    return file.ident


def test_a_recovery_leaves_a_mount_alone_whose_keeper_lives(journal):
    ident = staged(journal, b"bytes")
    held = journal.lock_for_keeper()
    assert held is not None
    journal.close()
    beside = Journal(journal.directory, beside_mount=True)
    assert not beside.alone
    beside.close()
    following = Journal(journal.directory)
    assert following.alone
    assert following.lock_for_keeper() is None
    following.close()
    os.close(held)
    beside = Journal(journal.directory, beside_mount=True)
    assert beside.alone
    assert beside.claim_leftovers() == [ident]
    beside.close()


def test_files_of_owners_stay_with_them_or_go(journal):
    kept, dropped, left, unlinked = (
        staged(journal, b"bytes", RECORD.replaced(owner=owner, unlinked=owner == "l:4"))
        for owner in ("l:1", "l:2+", "l:3", "l:4")
    )
    following = crashed(journal)
    assert {each.ident for each in following.owned_records({"l:1"}).values()} == {kept}
    assert following.claim_leftovers({kept}, lambda owner: owner.endswith("+")) == [left]
    names = {path.name for path in (following.directory / "staging").iterdir()}
    assert names == {f"{kept}.data", f"{kept}.json"}
    assert dropped != unlinked
    following.close()


@pytest.mark.parametrize("record", [RECORD, FULL])
def test_a_record_reads_back_as_it_was_written(record):
    assert DirtyRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        FULL.to_json()[:-5],
        json.dumps({**json.loads(FULL.to_json()), "base": ["key"]}),
        json.dumps({**json.loads(FULL.to_json()), "dirty": [[1]]}),
        json.dumps({**json.loads(FULL.to_json()), "sent": {"key": "k"}}),
    ],
)
def test_a_broken_record_is_recognised(text):
    with pytest.raises(RecordDamagedError):
        DirtyRecord.from_json(text)


def test_everything_in_the_state_directory_is_the_owners_alone(journal):
    old = os.umask(0)
    try:
        staged(journal, b"secret")
        journal.record_upload(MultipartUpload("key", "id"))
        journal.record_scratch("key")
        os.close(journal.open_log("a.1.log"))
    finally:
        os.umask(old)
    paths = [journal.directory, *journal.directory.rglob("*")]
    assert len(paths) > 8
    assert not any(stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in paths)


def test_loose_permissions_of_an_existing_directory_are_tightened(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    Journal(tmp_path / "state").close()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_one_directory_serves_one_mount_at_a_time(journal):
    with pytest.raises(EnvironmentProblemError, match="in use by another mount"):
        Journal(journal.directory)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_state_directory_that_is_none_is_refused(tmp_path, kind):
    (tmp_path / "real").mkdir()
    if kind == "file":
        (tmp_path / "state").write_text("")
    else:
        (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(EnvironmentProblemError):
        Journal(tmp_path / "state")


def test_a_dirty_file_of_a_dead_daemon_is_found_whole(journal):
    ident = staged(journal, b"written")
    following = crashed(journal)
    assert following.claim_leftovers() == [ident]
    (record,) = following.unsaved_records()
    assert record == RECORD.replaced(ident=ident, size=7)
    assert following.unsaved_path(ident).read_bytes() == b"written"
    assert list((following.directory / "staging").iterdir()) == []
    assert following.claim_leftovers() == []
    following.close()


def test_a_file_without_a_record_is_of_no_interest_after_a_crash(journal):
    staged(journal, b"clean", record=None)
    following = crashed(journal)
    assert following.claim_leftovers() == []
    assert list((following.directory / "staging").iterdir()) == []
    following.close()


def test_writes_since_the_record_are_replayed_up_to_the_last_whole_entry(journal):
    file = journal.create_staging()
    os.close(file.fd)
    name = f"{file.ident}.1.log"
    fd = journal.open_log(name)
    for entry in (
        written_entry(10, 20),
        written_entry(95, 130),
        truncated_entry(50),
        written_entry(60, 70),
        written_entry(1, 2)[:9],
    ):
        os.write(fd, entry)
    os.close(fd)
    journal.write_record(
        RECORD.replaced(ident=file.ident, base=BASE, base_valid=100, size=100, log=name)
    )
    following = crashed(journal)
    following.claim_leftovers()
    (record,) = following.unsaved_records()
    assert (record.size, record.base_valid, record.log) == (70, 50, None)
    assert list(record.dirty) == [ByteRange(10, 20), ByteRange(60, 70)]
    following.close()


def test_a_crash_while_setting_aside_is_continued(journal):
    ident = staged(journal, b"bytes")
    name = f"{ident}.data"
    (journal.directory / "staging" / name).rename(journal.directory / "unsaved" / name)
    following = crashed(journal)
    assert following.claim_leftovers() == [ident]
    assert following.unsaved_path(ident).read_bytes() == b"bytes"
    (record,) = following.unsaved_records()
    assert record.key == "dir/file"
    assert record.size == 5
    following.close()


def test_a_damaged_record_costs_no_byte(journal):
    ident = staged(journal, b"bytes")
    (journal.directory / "staging" / f"{ident}.json").write_text("{")
    following = crashed(journal)
    assert following.claim_leftovers() == [ident]
    (record,) = following.unsaved_records()
    assert record.key == ""
    assert "damaged" in record.reason
    assert following.unsaved_path(ident).read_bytes() == b"bytes"
    (following.directory / "unsaved" / f"{ident}.json").write_text("{")
    assert [r.key for r in following.unsaved_records()] == [""]
    following.remove_unsaved(ident)
    assert list(following.unsaved_records()) == []
    following.close()


def test_records_of_another_version_cost_no_byte_and_delete_nothing(journal):
    """As a downgrade finds them, among those of its own."""
    other = {**json.loads(FULL.to_json()), "format": 99}
    theirs, ours = uuid.uuid4().hex, uuid.uuid4().hex
    journal._segments.put(EntryKind.FILE, theirs, json.dumps(other), b"bytes")
    journal._segments.put(EntryKind.REMOVAL, uuid.uuid4().hex, '{"format": 99, "keys": ["key"]}')
    journal._segments.put(EntryKind.MARKER, uuid.uuid4().hex, '{"format": 99, "path": "d"}')
    journal.keep_small(RECORD.replaced(ident=ours, key="ours"), b"own")
    following = crashed(journal)
    assert sorted(following.claim_leftovers()) == sorted([theirs, ours])
    found = {record.ident: record for record in following.unsaved_records()}
    assert (found[theirs].key, "format 99 is not known" in found[theirs].reason) == ("", True)
    assert found[ours].key == "ours"
    assert following.unsaved_path(theirs).read_bytes() == b"bytes"
    assert (following.leftover_removals(), following.leftover_markers()) == ([], [])
    following.close()


def test_a_record_without_its_bytes_is_dropped(journal):
    ident = staged(journal, b"bytes")
    (journal.directory / "staging" / f"{ident}.data").unlink()
    assert journal.claim_leftovers() == []
    assert list(journal.unsaved_records()) == []


def test_uploads_are_remembered_until_forgotten(journal):
    first, second = MultipartUpload("a/b", "id/1"), MultipartUpload("a/b", "id/2")
    journal.record_upload(first)
    journal.record_upload(second)
    journal.forget_upload(first)
    journal.forget_upload(first)
    (journal.directory / "uploads" / "broken.json").write_text("{}")
    following = crashed(journal)
    assert following.leftover_uploads() == [second]
    assert not (following.directory / "uploads" / "broken.json").exists()
    following.close()


def test_hidden_objects_are_remembered_but_not_those_an_unsaved_file_needs(journal):
    for key in ("needed", "stray", "gone"):
        journal.record_scratch(key)
    journal.forget_scratch("gone")
    (journal.directory / "scratch" / "broken.json").write_text("{")
    ident = staged(
        journal, b"", RECORD.replaced(base=ObjectVersion("needed", "e", 9), scratch=True)
    )
    journal.claim_leftovers()
    assert journal.leftover_scratch() == ["stray"]
    journal.remove_unsaved(ident)
    assert sorted(journal.leftover_scratch()) == ["needed", "stray"]
