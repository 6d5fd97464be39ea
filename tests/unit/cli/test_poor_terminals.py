"""Every command where little is to be had: no terminal, 40 columns, LANG=C, no home to write to."""

import re
import subprocess
import sys

import pytest

from ossfs_py.cli.main import cli

COMMANDS = [name for name in cli.list_commands(cli.context_class(cli)) if name != "container"]
COLUMNS = 40
POOR = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/proc",  # nothing can be made there
    "LANG": "C",
    "LC_ALL": "C",
    "COLUMNS": str(COLUMNS),
}
WIDER = ("--small-file-prefetch / --no-small-file-prefetch", "[NAME]")
"""What has no space to break at."""


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ossfs_py", *arguments],
        env=POOR,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",  # Python's choice where the locale is C
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_narrow_terminal(command: str) -> None:
    done = said(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    # Examples and tables are lines to be copied, and stay whole.
    text = re.split(r"(?m)^ *(?:Examples|Workloads|Areas|Exit codes|bash)\b.*$", done.stdout)[0]
    broad = [line for line in text.splitlines() if len(line) > COLUMNS]
    assert not [line for line in broad if not line.strip().startswith(WIDER)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("version",),
        ("completion", "bash"),
        ("man",),
        ("docs",),
        ("recover", "--state-dir", "/proc/self/none"),
        ("doctor",),
        ("umount", "/proc"),
        ("mount", "models", "/proc/self/none", "--endpoint", "http://127.0.0.1:9"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_answers_without_terminal_locale_and_home(arguments: tuple[str, ...]) -> None:
    done = said(*arguments)
    assert done.returncode in (0, 1, 32)
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
