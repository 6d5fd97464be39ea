"""Shells complete what the command line has, because they ask it."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from ossfs_py.cli.completion import completed
from ossfs_py.cli.main import cli
from tests.support.commands import ossfs, plain_environment


def offered(*words: str) -> list[tuple[str, str]]:
    """Types and values of what is offered for the last word."""
    found = BashComplete(cli, {}, "ossfs-py", "").get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_OSSFS_PY_COMPLETE", "bash_complete")


def test_every_command_and_every_option_is_offered(asking: None) -> None:
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert {"mount", "umount", "completion"} < set(names)
    assert [value for _, value in offered("")] == names
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            assert [value for _, value in offered(name, "")] == sorted(command.commands)
            continue
        has = {
            flag
            for parameter in command.get_params(
                command.make_context(name, [], context, resilient_parsing=True)
            )
            if isinstance(parameter, click.Option) and not parameter.hidden
            for flag in (*parameter.opts, *parameter.secondary_opts)
            if flag.startswith("--")
        }
        assert {value for _, value in offered(name, "--")} == has


@pytest.mark.parametrize(
    ("words", "kind", "values"),
    [
        (["mount", "--data-path", "d"], "plain", ["direct"]),
        (["mount", "--log-format", ""], "plain", ["text", "json"]),
        (["mount", "--cache-dir", "x"], "dir", ["x"]),
        (["mount", "bucket", "x"], "dir", ["x"]),
        (["mount", "--log-file", "x"], "file", ["x"]),
        (["umount", "/mnt/"], "dir", ["/mnt/"]),
        (["cache", "show", "/mnt/"], "dir", ["/mnt/"]),
        (["info", "x"], "file", ["x"]),
        (["completion", "f"], "plain", ["fish"]),
    ],
)
def test_values_are_offered_by_what_the_placeholder_says(
    asking: None, words: list[str], kind: str, values: list[str]
) -> None:
    assert offered(*words) == [(kind, value) for value in values]


def test_parameters_of_other_types_stay_what_they_are() -> None:
    number = click.Option(["--number"], type=int, metavar="FILE")
    text = click.Option(["--text"], metavar="TEXT")
    completed(click.Command("any", params=[number, text]))
    assert (number.type, text.type) == (click.INT, click.STRING)


def test_bash_asks_the_command_and_offers_its_answer(tmp_path: Path) -> None:
    script = tmp_path / "ossfs-py.bash"
    script.write_text(ossfs("completion", "bash", environment={}).out)
    lines = """
        source "$1"
        function_name=$(complete -p ossfs-py | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=(ossfs-py mount --data-path "") COMP_CWORD=3
        $function_name ossfs-py
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    (tmp_path / "ossfs-py").write_text(f'#!/bin/sh\nexec {sys.executable} -m ossfs_py "$@"\n')
    (tmp_path / "ossfs-py").chmod(0o755)
    environment = plain_environment({})
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    command = ["bash", "--norc", "-c", lines, "bash", str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (ran.stdout.split(), ran.stderr) == (["temp", "cache", "direct"], "")


@pytest.mark.parametrize(
    ("shell", "sign"), [("zsh", "#compdef ossfs-py"), ("fish", "complete --no-files --command")]
)
def test_other_shells_get_what_they_read(shell: str, sign: str) -> None:
    said = ossfs("completion", shell, environment={})
    assert (said.code, said.err) == (0, "")
    assert sign in said.out
    assert f"_OSSFS_PY_COMPLETE={shell}_complete" in said.out
