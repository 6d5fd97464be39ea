"""Whoever is on PATH takes part in the benchmark, by a command line that a shell can read."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.bench.content import BUCKET, QUICK, crowded_names
from tests.bench.mounts import OTHERS, PEERS
from tests.bench.peers import QUICK_PEERS, QUICK_WORKS
from tests.bench.works import READ_WORKS
from tests.bench.write_works import WRITE_WORKS
from tests.support.stores import Store

STORE = Store("any", "http://127.0.0.1:9", "key's", "secret's")


@pytest.mark.parametrize("name", OTHERS)
def test_a_command_line_is_whole_and_keeps_quotes(name: str, tmp_path: Path) -> None:
    at = tmp_path / "a b"
    launch = OTHERS[name](STORE, at, tmp_path)
    (line,) = launch.command[2:]
    subprocess.run(["sh", "-n", "-c", line], check=True)
    assert not re.search(r"[{}]", line)
    echoed = line.replace("exec ", "echo ").replace("juicefs format", "echo")
    words = subprocess.run(["sh", "-c", echoed], capture_output=True, text=True, check=True).stdout
    assert (str(at) in words, name in words) == (True, True)
    assert BUCKET in words + (tmp_path / "keys").read_text()
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_each_peer_and_work_of_the_quick_benchmark_exists() -> None:
    names = [peer.name for peer in PEERS]
    assert all(any(word in name for name in names) for word in QUICK_PEERS.split(","))
    works = [work.name for work in (*READ_WORKS, *WRITE_WORKS)]
    assert len(set(works)) == len(works)
    for word in QUICK_WORKS.split(","):
        assert [name for name in works if word in name], word
    assert len(set(crowded_names(QUICK))) == QUICK.crowded_files
