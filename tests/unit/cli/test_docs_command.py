"""``ossfs-py docs`` and ``man``: the pages of the package, in a terminal and anywhere else."""

import os
import re
from pathlib import Path

import pytest

import ossfs_py
from ossfs_py.cli.docs import _LINK, _without_link
from ossfs_py.cli.main import main
from tests.support.terminals import in_terminal

PACKAGE = Path(ossfs_py.__file__).parent
DOCS = PACKAGE / "docs"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["docs", *arguments])
    told = capsys.readouterr()
    return caught.value.code, told.out, told.err


def test_without_a_topic_every_page_is_listed_with_its_title(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = outcome(capsys)
    assert code == 0
    pages = [*DOCS.glob("*.md"), *PACKAGE.glob("*.md")]
    assert len(out.splitlines()) == len(pages)
    for page in pages:
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert any(
            line.split()[0] == page.stem.lower() and line.endswith(title)
            for line in out.splitlines()
        )


@pytest.mark.parametrize("topic", ["tuning", "TUNING", "migration-zh", "guarantees"])
def test_a_page_in_a_pipe_is_as_it_is_written(
    topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = [p for p in PACKAGE.glob("**/*.md") if p.stem.lower() == topic.lower()]
    assert outcome(capsys, topic) == (0, page.read_text(), "")


def test_an_unknown_topic_is_told_in_one_sentence_with_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = outcome(capsys, "tunning")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("ossfs-py: there is no page 'tunning'; the pages are ")
    assert " tuning," in line


@pytest.mark.parametrize(
    ("topic", "columns", "more"),
    [
        ("options", 40, {"NO_COLOR": "1"}),
        ("migration-zh", 80, {"LANG": "C", "LC_ALL": "C"}),
        ("semantics", 100, {"TERM": "dumb"}),
    ],
)
def test_a_page_in_a_terminal_is_laid_out_and_paged(
    topic: str, columns: int, more: dict[str, str], tmp_path: Path
) -> None:
    # A pager that shows that it was used; HOME cannot be written.
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho PAGED\ncat\n")
    pager.chmod(0o755)
    shown = in_terminal(
        ("docs", topic),
        {"PATH": os.environ["PATH"], "HOME": "/proc", "TERM": "xterm", "COLUMNS": str(columns)}
        | {"PAGER": str(pager), "LC_ALL": "C.UTF-8"}
        | more,
    )
    assert "PAGED" in shown
    assert "<!--" not in shown
    assert "| --- |" not in shown
    assert "Traceback" not in shown
    # Links lead to pages that can be shown.
    assert ".md" not in shown
    told = " ".join(re.sub(r"\x1b\[[\d;]*m", "", shown).split())
    assert topic != "semantics" or "Guarantees (ossfs-py docs guarantees)" in told
    title = (DOCS / f"{topic}.md").read_text().split()[1]
    assert title in shown


def test_links_are_words_in_a_terminal_and_pictures_are_left_out() -> None:
    page = "![seen](images/a.png)[how](tuning.md#memory), [here](#top), [out](../../x.md)"
    assert _LINK.sub(_without_link, page) == "how (`ossfs-py docs tuning`), here, out"


def test_the_manual_page_in_a_terminal_is_shown_by_man(tmp_path: Path) -> None:
    program = tmp_path / "man"
    program.write_text('#!/bin/sh\necho "MAN $*"\nhead -1\n')
    program.chmod(0o755)
    shown = in_terminal(("man",), {"PATH": f"{tmp_path}:/usr/bin:/bin", "TERM": "xterm"})
    assert "MAN -l -" in shown
    assert ".TH OSSFS" in shown


def test_the_manual_page_in_a_terminal_without_man_is_plain_text(tmp_path: Path) -> None:
    shown = in_terminal(("man",), {"PATH": str(tmp_path), "TERM": "dumb", "LC_ALL": "C"})
    lines = shown.splitlines()
    assert "EXIT STATUS" in lines
    assert "    --data-path temp|cache|direct" in lines
    assert not [line for line in lines if line.startswith(".") or "\\f" in line or "\\-" in line]
