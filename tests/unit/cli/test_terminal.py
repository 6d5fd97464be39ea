"""What other people's words do to a terminal: nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.cli.terminal import console, printable, say
from ossfs_py.config.units import counted


@given(st.text(st.characters()))
def test_nothing_a_terminal_would_act_on_is_left(name: str) -> None:
    assert printable(name).isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("模型 v2.safetensors", "模型 v2.safetensors"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\nossfs-py: all is well", "a\\nossfs-py: all is well"),
        ("abc\u202efdp.exe", "abc\\u202efdp.exe"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\udce9"),
    ],
)
def test_a_name_is_shown_so_that_it_can_be_recognised(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize("name", ["x[/evil]", "x[bold]", ":smile:", "[link=file:///etc]x"])
def test_a_name_is_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console().print(printable(name))
    say(name)
    assert capsys.readouterr().out == f"{name}\n{name}\n"


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (2000, "2,000 files")]
)
def test_one_file_is_no_plural(number: int, shown: str) -> None:
    assert counted(number, "file") == shown
