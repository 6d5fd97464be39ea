"""How ``ossfs-py warmup`` reads its arguments."""

import pytest

from ossfs_py.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(["warmup", *argv])
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err.splitlines()[0]


def test_nothing_is_taken_out_of_a_shared_cache(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "--shared", "--evict", "/")
    assert code == 2
    assert told.startswith("ossfs-py: --evict and --shared cannot be used together")


def test_one_thing_is_done_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--check", "--background", "/")[0] == 2
    assert run(capsys, "--shared") == (2, "ossfs-py: warmup needs a PATH or --from-file")
