"""The command line: help, usage errors and exit codes, without mounting anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from ossfs_py.cli.main import main
from ossfs_py.config import Settings
from ossfs_py.config.groups.option import GROUPS
from ossfs_py.config.settings import NOT_OPTIONS, option_name


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    out, err = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, out, err


def test_help_names_every_setting_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "mount", "--help")
    assert code == 0
    positions = [out.index(f"\n{group}:") for group in GROUPS]
    assert positions == sorted(positions)
    for name in set(Settings.model_fields) - NOT_OPTIONS:
        assert f"--{option_name(name)}" in out
    assert "Examples:" in out
    assert "strongest first" in out


def test_help_fills_the_terminal_it_is_shown_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = {}
    for columns in (40, 80, 115, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, _ = run(capsys, "umount", "--help")
        assert code == 0
        text = out.split("Examples:")[0]
        longest[columns] = max(map(len, text.splitlines()))
    assert longest[40] <= 40
    assert 70 < longest[80] <= 80
    assert 80 < longest[115] <= 115
    assert longest[200] <= 120


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in ("mount", "umount", "demo", "version"):
        assert f"  {name} " in out


def test_every_listed_command_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mount", "umount", "demo", "version"):
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert "Usage: ossfs-py " + name in out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "version")
    assert code == 0
    assert out.startswith("ossfs-py 0.")


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_an_option_too(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = run(capsys, "version")
    assert run(capsys, option) == (0, told.splitlines()[0] + "\n", "")
    assert code == 0


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys)
    assert code == 2
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (["unmount"], ["ossfs-py: unmount: no such command (did you mean umount?)"]),
        (["xyzzy"], ["ossfs-py: xyzzy: no such command\n"]),
        (["doctor", "--endpont", "x"], ["--endpont: no such option (did you mean --endpoint?)"]),
        (["umount", "/", "--xyzzy"], ["ossfs-py: --xyzzy: no such option\n"]),
        (["mount"], ["BUCKET: missing argument", "MOUNTPOINT: missing argument"]),
        (["mount", "models"], ["MOUNTPOINT: missing argument"]),
        (["mount", "models", ""], ["MOUNTPOINT: must not be empty"]),
        (["mount", "models", "/mnt", "/other"], ["unexpected argument '/other'"]),
        (["mount", "models", "/mnt", "--cache-size"], ["requires an argument"]),
        (
            ["mount", "models", "/mnt", "--cash-size", "5G", "--concurrency=x"],
            [
                "--cash-size: no such option (did you mean --cache-size?)",
                "--concurrency: 'x' is not a whole number",
            ],
        ),
        (["mount", "models", "/mnt", "--secret-key=hunter2"], ["--secret-key: no such option"]),
        (["umount", ""], ["MOUNTPOINT: must not be empty"]),
        (["umount", "/", "--timeout", "soon"], ["--timeout: 'soon' is not a duration"]),
        (["umount"], ["Missing argument 'MOUNTPOINT'"]),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(
    argv: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    for line in lines:
        assert line in err
    assert "Traceback" not in err
    assert "hunter2" not in err


def test_unmounting_what_is_not_ours_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "umount", str(tmp_path))
    assert (code, err) == (1, f"ossfs-py: {tmp_path} is not a mountpoint\n")
    code, _, err = run(capsys, "umount", "/proc")
    assert code == 1
    assert err == "ossfs-py: /proc is not a mount of ossfs-py: proc is mounted there (proc)\n"


def test_usage_errors_need_no_heavy_imports() -> None:
    script = (
        "import sys\n"
        "from ossfs_py.cli.main import main\n"
        "try: main(['mount', 'models'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'trio', 'boto3', 'pyfuse3', 'rich'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ossfs_py", "mount"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "BUCKET: missing argument" in done.stderr
