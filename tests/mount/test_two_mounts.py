"""Programs on two mounts of one bucket, as on two hosts: what one does, the other sees rightly."""

import errno
import itertools
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.patience import wait_until
from tests.support.workplace import PROGRAM_SECONDS, Workplace

TTL_SECONDS = 0.3


@dataclass(frozen=True)
class Hosts:
    """The same directory of the bucket on two mounts."""

    here: Workplace
    there: Workplace

    @property
    def turns(self) -> Iterator[Workplace]:
        """One after the other, for ever."""
        return itertools.cycle((self.here, self.there))


@pytest.fixture
def hosts(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio, tmp_path: Path
) -> Hosts:
    """Two mounts that see what others did after 0.3 s at most."""
    ttl = f"{int(TTL_SECONDS * 1000)}ms"
    one, other = (
        mount(bucket, data_path=data_path, metadata_ttl=ttl, posix_metadata=True) for _ in range(2)
    )
    here = Workplace.make(one, minio_client, tmp_path)
    there = Workplace(other.path / here.path.name, tmp_path, here.bucket, here.prefix, minio_client)
    return Hosts(here, there)


def shell(place: Workplace, line: str) -> str:
    return place.run("bash", "-c", line)


def test_shells_that_append_in_turn_lose_no_line(hosts: Hosts) -> None:
    for number, place in zip(range(30), hosts.turns, strict=False):
        shell(place, f"echo line {number} >> log")
    lines = b"".join(b"line %d\n" % number for number in range(30))
    assert hosts.here.stored("log") == lines
    for place in (hosts.here, hosts.there):
        wait_until(lambda place=place: (place.path / "log").read_bytes() == lines)  # type: ignore[misc]


def test_shells_that_append_at_once_lose_no_line(hosts: Hosts) -> None:
    script = 'for n in $(seq 15); do echo "$0 $n" >> log || exit; done'
    both = [
        subprocess.Popen(["bash", "-c", script, name], cwd=place.path)
        for name, place in (("here", hosts.here), ("there", hosts.there))
    ]
    assert [one.wait(PROGRAM_SECONDS) for one in both] == [0, 0]
    lines = hosts.here.stored("log").decode().splitlines()
    for name in ("here", "there"):
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} {number}" for number in range(1, 16)
        ]
    assert len(lines) == 30


def test_tail_follows_what_another_host_appends(hosts: Hosts) -> None:
    """Whoever follows a name is given every line, whole and in order.

    Each append makes a new object, so that tail sees another file each time and begins anew: lines
    come again, and none is left out.
    """
    expected = [f"step {number}: loss {1 / (number + 1):.6f}" for number in range(12)]
    shell(hosts.here, f"echo '{expected[0]}' >> log")
    with subprocess.Popen(
        ["tail", "-n", "+1", "-s", "0.05", "-F", "log"],
        cwd=hosts.there.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tail:
        assert tail.stdout is not None
        seen: list[str] = []
        reading = threading.Thread(
            target=lambda: seen.extend(line.decode() for line in iter(tail.stdout.readline, b""))  # type: ignore[union-attr]
        )
        reading.start()
        for line in expected[1:]:
            shell(hosts.here, f"echo '{line}' >> log")
            wait_until(lambda line=line: f"{line}\n" in seen)  # type: ignore[misc]
        tail.terminate()
        reading.join(PROGRAM_SECONDS)
    assert {line.removesuffix("\n") for line in seen} == set(expected)
    assert list(dict.fromkeys(line.removesuffix("\n") for line in seen)) == expected


def test_rsync_appends_to_what_another_host_appended(hosts: Hosts) -> None:
    """--append takes the size that is there now for what it need not send."""
    source, content = hosts.here.local / "log", b""
    for number, place in zip(range(8), hosts.turns, strict=False):
        content += random.Random(number).randbytes(40_000 * (number + 1))
        source.write_bytes(content)
        time.sleep(TTL_SECONDS)  # rsync looks at the size before it opens the file
        place.run("rsync", "--append", source, "log")
        assert place.stored("log") == content
    place.run("rsync", "--append-verify", source, "log")
    wait_until(lambda: (hosts.here.path / "log").read_bytes() == content)


def test_git_pulls_on_one_host_and_is_clean_on_the_other(hosts: Hosts) -> None:
    upstream = hosts.here.local / "upstream"

    def git(where: Path, *words: str) -> str:
        identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
        command = ["git", *identity, "-C", str(where), *words]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PROGRAM_SECONDS
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    upstream.mkdir()
    git(upstream, "init", "-q", "-b", "main")
    for round_number in range(3):
        for number in range(10):
            (upstream / f"file-{number}").write_text(f"round {round_number}, file {number}\n" * 20)
        git(upstream, "add", ".")
        git(upstream, "commit", "-q", "-m", f"round {round_number}")
        if not round_number:
            git(hosts.here.path, "clone", "-q", str(upstream), "clone")
        else:
            git(hosts.here.path / "clone", "pull", "-q")
        time.sleep(TTL_SECONDS)
        there = hosts.there.path / "clone"
        assert git(there, "status", "--porcelain") == ""
        assert git(there, "log", "-1", "--format=%s") == f"round {round_number}\n"
        # Not even suspected: the numbers of inodes are the same on both.
        assert git(there, "diff-files", "--name-only") == ""
        git(there, "fsck", "--strict")


def test_a_checkpoint_rotated_on_one_host_is_loaded_whole_on_the_other(
    hosts: Hosts, torch: ModuleType
) -> None:
    """Saved beside the old one and renamed over it, while the other loads what is there; before
    the last one until it has loaded one whole, which takes longer than a step on a busy machine.
    """
    steps = 6
    loaded_one = threading.Event()

    def save(step: int) -> None:
        state = {f"layer.{number}": torch.full((1000, 100), float(step)) for number in range(8)}
        path = hosts.here.path / "checkpoint.pt"
        torch.save({"step": step, "state": state}, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    def load() -> int:
        """The step that was loaded; -1 if it was replaced meanwhile."""
        try:
            loaded = torch.load(hosts.there.path / "checkpoint.pt", weights_only=True)
        except OSError as exc:
            assert exc.errno == errno.ESTALE
            return -1
        for tensor in loaded["state"].values():
            assert bool((tensor == float(loaded["step"])).all()), "two checkpoints are mixed"
        return int(loaded["step"])

    def save_all() -> None:
        for step in range(1, steps):
            if step == steps - 1:
                loaded_one.wait(PROGRAM_SECONDS)
            save(step)

    save(0)
    saving = threading.Thread(target=save_all)
    saving.start()
    seen = []
    while saving.is_alive():
        seen.append(load())
        if seen[-1] >= 0:
            loaded_one.set()
    saving.join()
    time.sleep(TTL_SECONDS)
    assert load() == steps - 1
    loaded = [step for step in seen if step >= 0]
    assert loaded
    assert loaded == sorted(loaded)


def test_a_name_replaced_without_end_is_read_whole_or_told(hosts: Hosts) -> None:
    """A third client replaces it as fast as the store goes, under readers and writers here."""
    contents: dict[bytes, int] = {}
    stop = threading.Event()

    def content_of(number: int) -> bytes:
        body = random.Random(number).randbytes(100 + number * 7919 % 30_000)
        return body + sha256(body).digest()

    def whole(content: bytes) -> bool:
        return sha256(content[:-32]).digest() == content[-32:]

    def replace() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            contents[content_of(number)] = number
            hosts.here.put("name", content_of(number))

    hosts.here.put("name", content_of(0))
    replacing = threading.Thread(target=replace)
    replacing.start()
    outcomes: dict[str, int] = {"whole": 0, "stale": 0}
    try:
        deadline = time.monotonic() + 5
        for place in hosts.turns:
            if time.monotonic() > deadline:
                break
            try:
                got = (place.path / "name").read_bytes()
            except OSError as exc:
                assert exc.errno == errno.ESTALE
                outcomes["stale"] += 1
            else:
                assert whole(got), f"{len(got)} bytes are of no version"
                outcomes["whole"] += 1
        ours = content_of(10_000_000)
        (hosts.here.path / "name").write_bytes(ours)  # last close wins, whoever was last
        fd = os.open(hosts.there.path / "name", os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"appended")
        try:
            os.close(fd)
        except OSError as exc:
            assert exc.errno == errno.ESTALE  # others were always faster, and it is told
    finally:
        stop.set()
        replacing.join()
    assert outcomes["whole"] > outcomes["stale"], outcomes

    def seen_there() -> bool:
        # What close(2) could not append is tried once more when the kernel lets the file go, which
        # is after close(2) returned. Nobody replaces it any more: the line may be stored then.
        try:
            got = (hosts.there.path / "name").read_bytes()
        except OSError as exc:
            assert exc.errno == errno.ESTALE
            return False
        assert whole(got.removesuffix(b"appended"))
        return got == hosts.here.stored("name")

    wait_until(seen_there)
