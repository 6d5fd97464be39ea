"""Random programs on a real mount whose store fails and whose daemon is killed, beside a model.

Hypothesis makes up the calls, lays faults that the mount promises to survive without an error, and
kills the daemon between and within calls. Afterwards ``recover --upload`` has to bring back each
file: acknowledged bytes exactly, others as they were at some moment since. ``OSSFS_PY_TEST_SOAK=N``
tries N sequences on each data path, other ones each time.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.recovering import Recovering, kill, names, stored
from tests.support.seaweed import SeaweedServer
from tests.support.troubles import EVERY, HARMLESS

KIB, MIB = 1024, 1024**2
LONG = os.environ.get("OSSFS_PY_TEST_SOAK", "")
EXAMPLES = int(LONG or 1) + 1
"""One more: the first that Hypothesis makes up is the simplest, and repeats one call."""
SEED = 2
"""Of the sequences where none is asked for: the second of these writes, changes and is killed."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=20,
    database=None,
    deadline=None,
    # A sequence mounts for real several times: the shortest one is not worth an hour.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
NAMES = st.sampled_from(["a", "b", "d/a", "d/b"])
SIZES = st.sampled_from([0, 1, 5000, 300 * KIB, 9 * MIB, 20 * MIB])
SEEDS = st.integers(0, 2**32 - 1)
LONGEST_UNTIL_KILL_SECONDS = 0.2
MOST_KILLS = 3
"""In one sequence: each takes longer than all its other calls."""


@dataclass
class Known:
    """What is known of one file."""

    acknowledged: bytes | None = None
    """Content at the last fsync or close that returned; None: it is not there."""
    since: list[bytes | None] = field(default_factory=list)
    """What it has been since then, the present last."""

    @property
    def present(self) -> bytes | None:
        return self.since[-1] if self.since else self.acknowledged

    def acknowledge(self) -> None:
        self.acknowledged, self.since = self.present, []


class Machine(RuleBasedStateMachine):
    """One bucket prefix, mounted again and again."""

    def __init__(
        self,
        mount: Callable[[str], Mount],
        proxy: Proxy,
        seaweed: SeaweedServer,
        client: Minio,
        bucket: str,
        prefix: str,
    ) -> None:
        super().__init__()
        self.proxy, self.client, self.bucket, self.prefix = proxy, client, bucket, prefix
        self.mounted = mount(f"{bucket}/{prefix}")
        self.recover = Recovering(self.mounted, seaweed)
        self.files: dict[str, Known] = {}
        self.descriptors: dict[str, int] = {}
        self.kills = 0

    def known(self, name: str) -> Known:
        return self.files.setdefault(name, Known())

    def there(self, number: int) -> str | None:
        """One of the files that exist."""
        found = sorted(name for name, known in self.files.items() if known.present is not None)
        return found[number % len(found)] if found else None

    # -- programs ---------------------------------------------------------------------------------

    @rule(name=NAMES, size=SIZES, seed=SEEDS, keep_open=st.booleans())
    def write_anew(self, name: str, size: int, seed: int, keep_open: bool) -> None:
        self.close(name)
        content = random.Random(seed).randbytes(size)
        path = self.mounted.path / name
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.descriptors[name] = fd
        known = self.known(name)
        known.since.append(b"")
        written = 0
        while written < size:
            written += os.write(fd, content[written : written + MIB])
        known.since.append(content)
        if not keep_open:
            self.close(name)

    @precondition(lambda self: self.descriptors)
    @rule(number=st.integers(0, 9), seed=SEEDS)
    def write_within(self, number: int, seed: int) -> None:
        name = sorted(self.descriptors)[number % len(self.descriptors)]
        known = self.known(name)
        content = bytearray(known.present or b"")
        rng = random.Random(seed)
        offset = rng.randrange(len(content) + 1000)
        data = rng.randbytes(rng.randrange(1, 100_000))
        assert os.pwrite(self.descriptors[name], data, offset) == len(data)
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
        known.since.append(bytes(content))

    @precondition(lambda self: self.descriptors)
    @rule(number=st.integers(0, 9), how=st.sampled_from(["fsync", "close", "close"]))
    def settle(self, number: int, how: str) -> None:
        name = sorted(self.descriptors)[number % len(self.descriptors)]
        if how == "close":
            self.close(name)
            return
        os.fsync(self.descriptors[name])
        self.known(name).acknowledge()
        assert stored(self.client, self.bucket, self.key(name)) == self.known(name).present

    def close(self, name: str) -> None:
        if (fd := self.descriptors.pop(name, None)) is not None:
            os.close(fd)
            self.known(name).acknowledge()
            assert stored(self.client, self.bucket, self.key(name)) == self.known(name).present

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 9), seed=SEEDS)
    def read(self, number: int, seed: int) -> None:
        name = self.there(number)
        if name is None:
            return
        content = self.known(name).present or b""
        fd = os.open(self.mounted.path / name, os.O_RDONLY)
        try:
            assert os.fstat(fd).st_size == len(content)
            offset = random.Random(seed).randrange(len(content) + 1)
            assert os.pread(fd, 4 * MIB, offset) == content[offset : offset + 4 * MIB]
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 9), name=NAMES)
    def rename(self, number: int, name: str) -> None:
        source = self.there(number)
        if source is None or source == name:
            return
        self.close(source)
        self.close(name)
        (self.mounted.path / name).parent.mkdir(exist_ok=True)
        (self.mounted.path / source).rename(self.mounted.path / name)
        self.files[name] = self.files.pop(source)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 9))
    def unlink(self, number: int) -> None:
        name = self.there(number)
        if name is not None:
            self.close(name)
            (self.mounted.path / name).unlink()
            del self.files[name]

    @rule()
    def look(self) -> None:
        found = {
            str(path.relative_to(self.mounted.path))
            for path in self.mounted.path.rglob("*")
            if path.is_file()
        }
        assert found == {name for name, known in self.files.items() if known.present is not None}

    # -- trouble ----------------------------------------------------------------------------------

    @rule(seed=SEEDS)
    def the_store_fails_for_a_while(self, seed: int) -> None:
        rng = random.Random(seed)
        faults = []
        for trouble in rng.sample(HARMLESS, 3):
            everywhere = len(trouble.requests) == len(EVERY)
            operation = "*" if everywhere else rng.choice(sorted(trouble.requests))
            faults.append(replace(trouble.make(rng), operation=operation))
        self.proxy.faults = faults

    def may_die(self) -> bool:
        """Whether there is something to lose."""
        return bool(self.files) and self.kills < MOST_KILLS

    @precondition(may_die)
    @rule()
    def kill(self) -> None:
        self.die()

    @precondition(may_die)
    @rule(seed=SEEDS, number=st.integers(0, 9), work=st.sampled_from(["close", "rename", "unlink"]))
    def kill_within(self, seed: int, number: int, work: str) -> None:
        """The daemon dies while a call is under way; the call has happened, or it has not."""
        name = self.there(number)
        if name is None:
            return
        self.close(name)
        known, path = self.known(name), self.mounted.path / name
        before, after, other = known.present, known.present, f"{name}-renamed"
        if work == "close":
            after = random.Random(seed).randbytes(12 * MIB)

        def call() -> None:
            with contextlib.suppress(OSError):
                if work == "close":
                    path.write_bytes(after or b"")
                elif work == "rename":
                    path.rename(path.with_name(path.name + "-renamed"))
                else:
                    path.unlink()

        thread = threading.Thread(target=call)
        thread.start()
        time.sleep(random.Random(seed).uniform(0, LONGEST_UNTIL_KILL_SECONDS))
        if work == "close":
            known.since = [b"", after]
        elif work == "unlink":
            known.since = [None]
        self.die(thread, renamed=(name, other) if work == "rename" else None)
        if work == "rename":
            found = {each for each in (name, other) if self.content(each) is not None}
            assert found
            for each in found:
                assert self.content(each) == before
                self.files[each] = Known(before)
            if name not in found:
                del self.files[name]

    def die(
        self, thread: threading.Thread | None = None, renamed: tuple[str, str] | None = None
    ) -> None:
        self.kills += 1
        self.proxy.faults = []
        self.proxy.accept_again()
        kill(self.mounted)
        if thread is not None:
            thread.join(120)
            assert not thread.is_alive(), "a call hangs on the dead mount"
        for fd in self.descriptors.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.descriptors.clear()
        outcome = self.recover("--upload")
        assert outcome.code == 0, outcome
        self.mounted.start()
        for name, known in self.files.items():
            if renamed is None or name != renamed[0]:
                self.check(name, known)
        assert self.recover.list() == []

    def check(self, name: str, known: Known) -> None:
        """What is there now is something the file has been since it was acknowledged."""
        found = self.content(name)
        allowed = [known.acknowledged, *known.since]
        begun = found is not None and any(
            each is not None and each.startswith(found) for each in known.since
        )
        assert found in allowed or begun, (
            f"{name} has {None if found is None else len(found)} bytes and was "
            f"{[None if each is None else len(each) for each in allowed]}"
        )
        known.acknowledged, known.since = found, []

    def content(self, name: str) -> bytes | None:
        """Of the object, as another client sees it."""
        if self.key(name) not in names(self.client, self.bucket):
            return None
        return stored(self.client, self.bucket, self.key(name))

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def teardown(self) -> None:
        self.proxy.faults = []
        self.proxy.accept_again()
        for name in list(self.descriptors):
            self.close(name)
        self.look()
        for name, known in self.files.items():
            assert self.content(name) == known.present, name
        assert self.mounted.unmount() == 0


@pytest.mark.timeout(600 + 60 * EXAMPLES)
def test_what_was_acknowledged_survives_faults_and_kills(
    proxy: Proxy,
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    data_path: str,
    minio_client: Minio,
) -> None:
    numbers = iter(range(1_000_000))

    def start(source: str) -> Mount:
        return mount(source, endpoint=proxy.endpoint, data_path=data_path, stall_timeout="1s")

    def machine() -> Machine:
        return Machine(start, proxy, seaweed, minio_client, bucket, str(next(numbers)))

    if not LONG:
        seed(SEED)(machine)
    run_state_machine_as_test(machine, settings=SETTINGS)  # type: ignore[no-untyped-call]
