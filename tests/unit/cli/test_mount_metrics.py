"""What ``ossfs-py stats`` makes of the metrics of a mount."""

import pytest

from ossfs_py.cli.mount_metrics import Section, sections, short_time
from ossfs_py.telemetry.metrics import MEMORY, NETWORK
from tests.support.counting_mount import CountingMount

MIB = 1024**2


def by_heading(tables: list[Section]) -> dict[str, Section]:
    return {table.headings[0]: table for table in tables}


def row(section: Section, name: str) -> tuple[str, ...]:
    return next(row for row in section.rows if row[0] == name)


def test_rates_are_what_changed_since_the_last_look() -> None:
    mount = CountingMount()
    mount.metrics.bytes_read.values[MEMORY] = 10 * MIB
    before = mount.look()
    mount.metrics.bytes_read.values[MEMORY] += 4 * MIB
    mount.metrics.bytes_read.values[NETWORK] += MIB
    mount.metrics.requests.labels("GetObject").inc(6)
    mount.metrics.request_seconds.labels("GetObject").observe(0.5)
    mount.metrics.retries.labels("GetObject").inc(2)
    found = by_heading(sections(mount.look(), before, 2.0))
    traffic = found["TRAFFIC"]
    assert row(traffic, "Bytes read, from memory")[1:] == ("2.0 MiB/s", "14.0 MiB")
    assert row(traffic, "Bytes read, waited for network")[1:] == ("512.0 KiB/s", "1.0 MiB")
    assert row(found["STORE"], "GetObject") == ("GetObject", "3.0", "6", "500 ms", "2", "0")


def test_a_single_look_has_totals_and_no_rates() -> None:
    mount = CountingMount()
    mount.metrics.requests.labels("ListObjectsV2").inc()
    found = by_heading(sections(mount.look(), None, 0.0))
    assert found["TRAFFIC"].headings == ("TRAFFIC", "TOTAL")
    assert found["STORE"].headings == ("STORE", "TOTAL", "MEAN TIME", "RETRIES", "FAILED")
    assert row(found["STORE"], "ListObjectsV2")[1] == "1"


def test_a_daemon_that_began_anew_has_no_negative_rates() -> None:
    mount = CountingMount()
    mount.metrics.bytes_read.values[MEMORY] = MIB
    found = by_heading(sections(CountingMount().look(), mount.look(), 1.0))
    assert row(found["TRAFFIC"], "Bytes read, from memory")[1] == "0 bytes/s"


def test_only_the_cache_data_path_shows_its_cache() -> None:
    for data_path, shown in (("direct", False), ("cache", True)):
        found = by_heading(sections(CountingMount(data_path).look(), None, 0.0))
        names = {row[0] for table in found.values() for row in table.rows}
        assert ("Disk cache, found" in names) == ("Disk cache" in names) == shown


def test_busy_operations_come_first_with_their_mean_time() -> None:
    mount = CountingMount()
    mount.metrics.operations.add_since(0.0, "getattr")
    for _ in range(3):
        mount.metrics.operations.add_since(0.0, "read")
    table = by_heading(sections(mount.look(), None, 0.0))["OPERATION"]
    assert [(row[0], row[1]) for row in table.rows] == [("read", "3"), ("getattr", "1")]


def test_waits_are_shown_with_what_they_wait_for() -> None:
    mount = CountingMount()
    mount.waiting = [
        {
            "operation": "GetObject",
            "key": "x" * 99,
            "seconds": 12.34,
            "attempt": 3,
            "waits_for": "the next attempt, after: 503 SlowDown",
        }
    ]
    ((name, age, why),) = by_heading(sections(mount.look(), None, 0.0))["WAITING"].rows
    assert name == "GetObject ..." + "x" * 40
    assert (age, why) == ("12.3 s", "attempt 3: the next attempt, after: 503 SlowDown")


def test_write_back_is_shown_while_something_is_pending() -> None:
    mount = CountingMount()
    names = [row[0] for row in by_heading(sections(mount.look(), None, 0.0))["STATE"].rows]
    assert "To be uploaded" not in names
    mount.metrics.write_back_files.set(2)
    mount.metrics.write_back_bytes.set(3 * MIB)
    state = by_heading(sections(mount.look(), None, 0.0))["STATE"]
    assert row(state, "To be uploaded")[1] == "2 closed files, 3.0 MiB"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0"), (8.74e-6, "8.74 us"), (0.0123, "12.3 ms"), (2.5, "2.5 s"), (100.0, "100 s")],
)
def test_times_have_three_digits(seconds: float, shown: str) -> None:
    assert short_time(seconds) == shown
