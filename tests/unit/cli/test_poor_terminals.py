"""Every command where little is to be had: no terminal, 40 columns, LANG=C, no home to write to,
no colours, no man(1), and a proxy that lets nothing through."""

import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ossfs_py.cli.main import cli
from tests.support.terminals import in_terminal

COMMANDS = cli.list_commands(cli.context_class(cli))
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


def said(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a command says; ``more`` is added to its environment."""
    return subprocess.run(
        [sys.executable, "-m", "ossfs_py", *arguments],
        env=POOR | more,
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
    # What is to be copied is not broken: no line ends within an option, a path or an address.
    assert not re.search(r"\w[-/]$", text, re.MULTILINE)
    if command in ("mount", "doctor"):
        for whole in ("http://127.0.0.1:9000", "oss-cn-hangzhou.aliyuncs.com", "/var/lib/ossfs-py"):
            assert whole in text


def test_the_help_of_mount_fits_in_a_container_too() -> None:
    assert said("container", "mount", "--help").stdout == said("mount", "--help").stdout
    assert said("container", "--help").stdout.startswith("Usage: ossfs-py container")


class Blocking(socketserver.StreamRequestHandler):
    """A proxy that lets nothing through."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")


@pytest.fixture
def blocked() -> Iterator[dict[str, str]]:
    """The environment of somebody behind such a proxy."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Blocking) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_address[1]}"
        yield {"http_proxy": url, "https_proxy": url, "all_proxy": url}
        proxy.shutdown()


def test_a_proxy_that_blocks_everything_is_named(blocked: dict[str, str]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = said("doctor", "models", "--endpoint", "https://s3.example", **blocked, **keys)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "proxy" in done.stdout
    assert blocked["https_proxy"].removeprefix("http://") in re.sub(r"\s+", "", done.stdout)


@pytest.mark.parametrize("arguments", [("version",), ("list",), ("docs", "tuning"), ("doctor",)])
def test_what_asks_no_store_does_not_mind_the_proxy(
    arguments: tuple[str, ...], blocked: dict[str, str]
) -> None:
    alone, behind = said(*arguments), said(*arguments, **blocked)
    assert (behind.returncode, behind.stderr) == (alone.returncode, alone.stderr)


@pytest.mark.parametrize("arguments", [("list",), ("doctor",), ("docs", "tuning"), ("man",)])
def test_a_terminal_without_colours_gets_none(arguments: tuple[str, ...]) -> None:
    shown = in_terminal(
        arguments, POOR | {"NO_COLOR": "1", "TERM": "xterm-256color", "PAGER": "cat"}
    )
    assert shown
    assert not re.search("\x1b\\[[0-9;]*(3[0-9]|4[0-9]|9[0-9])m", shown)


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
