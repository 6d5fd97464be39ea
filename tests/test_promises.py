"""The pages that promise something name tests, and those exist."""

import ast
import re
from pathlib import Path

import pytest

import ossfs_py

TESTS = Path(__file__).parent
PAGES = [Path(ossfs_py.__file__).parent / name for name in ("GUARANTEES.md", "THREATS.md")]


@pytest.fixture(scope="module")
def existing() -> set[str]:
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_promise_names_tests_that_exist(page: Path, existing: set[str]) -> None:
    for line in page.read_text().splitlines():
        named = set(re.findall(r"`(test_\w+)`", line))
        is_promise = line.startswith("| ") and not line.startswith(
            ("| --- ", "| guarantee", "| req")
        )
        assert not is_promise or line.startswith("| threat") or named, f"nothing proves: {line}"
        assert named <= existing, f"no such tests: {sorted(named - existing)}"


def test_each_actor_s_threats_are_promised_something_and_told_what_is_left_open() -> None:
    page = (Path(ossfs_py.__file__).parent / "THREATS.md").read_text()
    sections = dict(re.findall(r"(?ms)^## ([^\n]+)\n(.*?)(?=^## |\Z)", page))
    for actor in ("Bucket writer", "Other local user", "Other mount", "Store", "Network", "Pod"):
        text = sections[actor]
        assert "`test_" in text, actor
        assert "Left open:\n\n* " in text, actor
