"""The suites on other servers: what chooses one, what is known of it, what is written of it."""

import fnmatch
import re
from pathlib import Path

import pytest

from tests.support.chosen import PREFIX, ChosenStore, WrongChoiceError, chosen_server
from tests.support.servers import deviations
from tests.support.servers.__main__ import SERVERS
from tests.support.servers.page import ORDER, page_of

TESTS = Path(__file__).parent
GIVEN = {"ENDPOINT": "http://127.0.0.1:1", "ACCESS_KEY": "a:b", "SECRET_KEY": "s"}


def environment(**more: str) -> dict[str, str]:
    return {f"{PREFIX}{name}": value for name, value in {**GIVEN, **more}.items()}


def test_a_store_is_chosen_by_four_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ChosenStore.of({}) is None
    chosen = ChosenStore.of(environment(SERVER="ceph"))
    assert chosen is not None
    assert (chosen.name, chosen.endpoint, chosen.host) == ("ceph", GIVEN["ENDPOINT"], "127.0.0.1:1")
    assert chosen.environment["AWS_ACCESS_KEY_ID"] == "a:b"
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(f"{PREFIX}SERVER", raising=False)
    assert chosen_server() == "own"
    monkeypatch.delenv(f"{PREFIX}ENDPOINT")
    assert chosen_server() == ""


@pytest.mark.parametrize("missing", ["ACCESS_KEY", "SECRET_KEY"])
def test_half_a_choice_is_refused(missing: str) -> None:
    with pytest.raises(WrongChoiceError, match=f"{PREFIX}{missing} is not"):
        ChosenStore.of(environment(**{missing: ""}))


def test_one_bucket_is_not_shared_by_test_processes() -> None:
    with pytest.raises(WrongChoiceError, match="one after the other"):
        ChosenStore.of({**environment(BUCKET="mine"), "PYTEST_XDIST_WORKER": "gw0"})


def test_a_deviation_is_found_by_the_name_of_its_test() -> None:
    name = "tests/contract/test_store.py::test_the_owner_is_that_of_the_very_key[rclone]"
    (known,) = deviations.of_test(name, "rclone")
    assert known.reason == "listings tell no owner"
    assert list(deviations.of_test(name, "seaweedfs")) == []


@pytest.mark.parametrize("known", deviations.DEVIATIONS, ids=lambda known: known.reason)
def test_each_deviation_names_servers_and_tests_that_are_there(
    known: deviations.Deviation,
) -> None:
    assert set(known.servers) <= {*SERVERS, "own"}
    for pattern in known.tests:
        name, _, test = pattern.partition("::")
        there = re.findall(r"^def (test_\w+)", (TESTS / name).read_text(), re.MULTILINE)
        assert fnmatch.filter(there, test.partition("[")[0]), pattern


def test_the_page_shows_what_was_found_and_what_was_not_tried() -> None:
    feature = {"name": "x", "what": "copies | parts", "verdict": "refused", "instead": "sent whole"}
    outcome = {
        "version": "Store 1.0",
        "date": "2026-11-29",
        "files": ["contract/test_store.py", "mount/test_names.py"],
        "features": [feature],
        "passed": 40,
        "failed": [],
        "expected": {"a": "ceph: no reason", "b": "ceph: no reason"},
        "note": "run twice",
    }
    asked = {"version": "Store 2.0", "date": "2026-11-30", "files": [], "features": [feature]}
    page = page_of({"ceph": outcome, "moto": asked, "swift": {"problem": "not installed"}})
    assert "| Store 2.0 | not run |  |  | 2026-11-30 |" in page
    assert "| copies \\| parts | refused: sent whole |" in page
    assert "| Store 1.0 | 40 | 2 | 0 | 2026-11-29 |" in page
    assert "- Store 1.0: `contract/test_store.py`, `mount/test_names.py`" in page
    assert "- no reason (2)" in page
    assert "- Store 1.0: run twice" in page
    assert "- cannot hold `StorageClass`: there is one storage class" in page
    assert "to answer a request about any part of it: the largest file" in page  # of moto
    for table in (deviations.NOT_KEPT, deviations.RANGES_COST_THE_OBJECT, deviations.ENCRYPTION):
        assert set(table) <= set(SERVERS)
    assert set(ORDER) == set(SERVERS)
