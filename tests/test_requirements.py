"""Tests that this machine cannot run are skipped with a reason, or fail where skips are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CANNOT_RUN = """
import pytest

def test_that_passes():
    pass

def test_that_cannot_run(torch):
    raise AssertionError("there is no torch")

@pytest.mark.skip(reason="not today")
def test_that_is_marked():
    pass
"""
WHOLE_MODULE = """
import pytest
pytest.skip("not here", allow_module_level=True)
"""


def run_pytest(directory: Path, refuse: str) -> tuple[int, str]:
    """Run the tests of a directory, with the hooks of these tests, on a machine without torch."""
    (directory / "torch.py").write_text("raise ImportError('for the test')")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rsf", "-p", "tests.conftest", "-c", os.devnull, "."],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory}:{CHECKOUT}"} | {"REFUSE_SKIPS": refuse},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_what_cannot_run_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(CANNOT_RUN)
    code, out = run_pytest(tmp_path, "")
    assert code == 0, out
    assert "torch cannot be imported: make test TORCH=1 brings it" in out
    assert "1 passed, 2 skipped" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "summary", "reasons"),
    [
        (CANNOT_RUN, "1 passed", ["torch cannot be imported", "not today"]),
        (WHOLE_MODULE, "1 error", ["not here"]),
    ],
)
def test_a_skip_is_a_failure_where_skips_are_refused(
    text: str, summary: str, reasons: list[str], tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(text)
    code, out = run_pytest(tmp_path, "1")
    assert code != 0
    assert out.count("skips are refused here") >= len(reasons)
    for reason in reasons:
        assert reason in out
    assert summary in out.splitlines()[-1]
    assert "skipped" not in out.splitlines()[-1]
