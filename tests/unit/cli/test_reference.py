"""The manual page, and README's tables against the settings they speak of."""

import subprocess
from pathlib import Path

import click
import pytest

from ossfs_py.cli.main import cli, main
from ossfs_py.cli.reference import BEGIN, END, man_page, options_tables, with_options_tables
from ossfs_py.config import Settings
from ossfs_py.config.groups.option import GROUPS
from ossfs_py.config.settings import NOT_OPTIONS, option_name

README = Path(__file__).parents[3] / "README.md"


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


def test_the_readme_s_tables_are_those_of_the_settings() -> None:
    text = README.read_text()
    assert BEGIN in text
    assert END in text
    assert text == with_options_tables(text), "run: make readme"


def test_the_tables_name_every_setting_in_its_group() -> None:
    tables = options_tables()
    positions = [tables.index(f"**{group}**") for group in GROUPS]
    assert positions == sorted(positions)
    for field in set(Settings.model_fields) - NOT_OPTIONS:
        assert f"`--{option_name(field)}" in tables
    # Three cells in each row, whatever the values look like.
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    assert all(line.replace(r"\|", "").count("|") == 4 for line in rows)
