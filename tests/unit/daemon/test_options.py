"""What was set reaches the layer that it is for."""

import os
from dataclasses import fields
from pathlib import Path

import pytest

from ossfs_py.config import Settings
from ossfs_py.daemon import options

MIB = 1024**2


def settings(**more: object) -> Settings:
    return Settings.model_validate({"bucket": "models", "mountpoint": "/mnt/models", **more})


def test_every_setting_of_the_store_reaches_it() -> None:
    given = {
        "endpoint": "https://store.example.com",
        "region": "somewhere",
        "addressing": "path",
        "profile": "work",
        "ca_bundle": Path("/etc/ssl/own.pem"),
        "concurrency": 7,
        "connect_timeout_seconds": 3.0,
        "stall_timeout_seconds": 4.0,
        "retry_budget_seconds": 5.0,
        "checksum": "md5",
        "conditional_writes": "off",
        "part_copy": "off",
        "storage_class": "IA",
        "sse": "aws:kms",
        "sse_kms_key_id": "alias/own",
        "request_payer": True,
        "acl": "bucket-owner-full-control",
    }
    made = options.store_options(settings(prefix="team/", **given))
    for name, value in given.items():
        assert getattr(made, name) == value, name
    assert made.scratch_prefix == "team/", "a mount writes nothing outside of its prefix"


def test_no_option_of_the_store_is_left_to_chance() -> None:
    """Each has a setting of its name, but for where probes write and what they found is kept."""
    named = {field.name for field in fields(options.StoreOptions)} - {
        "scratch_prefix",
        "traits_dir",
    }
    named.remove("probe_afresh")  # for doctor, which looks again
    assert named <= set(Settings.model_fields)


def test_a_small_memory_budget_makes_small_parts() -> None:
    small = options.write_limits(settings(memory_limit_bytes=64 * MIB, block_size_bytes=MIB))
    large = options.write_limits(settings(memory_limit_bytes=1024 * MIB))
    assert small.memory_part_bytes == 8 * MIB < large.memory_part_bytes


def test_hidden_objects_stay_below_the_prefix() -> None:
    made = options.filesystem_options(settings(prefix="team/", on_conflict="fail"))
    assert made.scratch_prefix.startswith("team/")
    assert made.conflicts.fail
    assert not options.filesystem_options(settings()).conflicts.fail


@pytest.mark.parametrize(
    ("data_path", "posix_metadata", "kept"),
    [("cache", True, True), ("cache", False, False), ("direct", True, False)],
)
def test_answers_are_kept_where_all_are_asked_and_the_disk_cache_lasts(
    data_path: str, posix_metadata: bool, kept: bool, tmp_path: Path
) -> None:
    found = settings(data_path=data_path, posix_metadata=posix_metadata, cache_dir=tmp_path)
    path = options.metadata_file(found, "https://store")
    assert (path is not None) == kept
    assert path is None or path.parent == tmp_path


@pytest.mark.parametrize(
    ("allow_other", "trust", "guessed_for"),
    [(False, False, None), (True, False, os.geteuid()), (True, True, None)],
)
def test_guesses_are_the_owner_s_where_others_see_the_mount(
    allow_other: bool, trust: bool, guessed_for: int | None, tmp_path: Path
) -> None:
    found = settings(
        allow_other=allow_other,
        trust_default_modes=trust,
        uid=12345,
        data_path="cache",
        cache_dir=tmp_path,
    )
    assert options.namespace_options(found).guessed_for_uid == guessed_for
    # What is asked is worth keeping.
    kept = options.metadata_file(found, "https://store")
    assert (kept is not None) == (guessed_for is not None)


def test_each_bucket_store_and_prefix_has_a_journal_of_its_own(tmp_path: Path) -> None:
    below = [
        options.state_directory(settings(state_dir=tmp_path, **what), Path("/mnt"))
        for what in (
            {"bucket": "one"},
            {"bucket": "two"},
            {"bucket": "two", "prefix": "p/"},
            {"bucket": "two", "endpoint": "http://127.0.0.1:1"},
        )
    ]
    assert len(set(below)) == len(below)


def test_each_mountpoint_has_a_state_of_its_own(tmp_path: Path) -> None:
    found = settings(state_dir=tmp_path)
    one, other = (options.state_directory(found, Path(f"/mnt/{name}")) for name in ("a", "b"))
    assert one != other
    assert one.parent == other.parent == tmp_path
    assert one == options.state_directory(settings(state_dir=tmp_path), Path("/mnt/a"))


def test_only_what_is_written_to_has_to_be_writable(tmp_path: Path) -> None:
    reading = options.local_directories(settings(read_only=True, data_path="direct"))
    assert (reading.writes_temp, reading.writes_state, reading.cache) == (False, False, None)
    caching = options.local_directories(settings(data_path="cache", cache_dir=tmp_path))
    assert caching.writes_temp
    assert caching.writes_state
    assert caching.cache is not None
    assert not caching.cache.is_default
    assert caching.state.is_default
