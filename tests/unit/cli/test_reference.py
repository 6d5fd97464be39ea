"""The manual page, and the tables of the documentation against what they speak of."""

import subprocess
from pathlib import Path

import click
import pytest

from ossfs_py.cli.main import cli, main
from ossfs_py.cli.reference import (
    TABLES,
    man_page,
    marks,
    migration_tables,
    options_tables,
    with_tables,
)
from ossfs_py.config import Settings
from ossfs_py.config.foreign_names import FOREIGN_NAMES
from ossfs_py.config.groups.option import GROUPS
from ossfs_py.config.settings import NOT_OPTIONS, option_name

DOCS = Path(__file__).parents[3] / "ossfs_py" / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return man_page(cli)


def test_the_manual_page_renders_without_a_warning(page: str) -> None:
    # -P-cbou: plain text, without bold and underlined letters.
    command = ["groff", "-man", "-ww", "-Tascii", "-P-cbou"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "ossfs-py mount [OPTIONS] BUCKET[/PREFIX] MOUNTPOINT" in done.stdout
    assert "EXIT STATUS" in done.stdout


def test_the_manual_page_names_every_command_and_setting(page: str) -> None:
    for name in cli.list_commands(click.Context(cli)):
        assert f".SS ossfs-py {name}".replace("-", r"\-") in page
    for field in set(Settings.model_fields) - NOT_OPTIONS:
        assert f"--{option_name(field)}".replace("-", r"\-") in page


def test_the_manual_page_is_printed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["man"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == page


def test_no_line_of_text_is_taken_for_a_request(page: str) -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".nf", ".fi"}
    assert {
        line.split(" ")[0] for line in page.splitlines() if line.startswith((".", "'"))
    } <= known


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_pages_are_those_of_the_program(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    begin, end = marks(name)
    assert 0 < text.index(begin) < text.index(end)
    assert text == with_tables(text), "run: make readme"


def test_every_option_of_other_programs_is_in_a_table_with_ours() -> None:
    tables = migration_tables()
    for name, known in FOREIGN_NAMES.items():
        rows = [line for line in tables.splitlines() if line.startswith(f"| `{name}`")]
        assert rows
        assert all(f"`{flag}`" in row for row in rows for flag in known.flags())


def test_the_tables_name_every_setting_in_its_group() -> None:
    tables = options_tables()
    positions = [tables.index(f"## {group}\n") for group in GROUPS]
    assert positions == sorted(positions)
    for field in set(Settings.model_fields) - NOT_OPTIONS:
        assert f"`--{option_name(field)}" in tables
    # Three cells in each row, whatever the values look like.
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    assert all(line.replace(r"\|", "").count("|") == 4 for line in rows)
