"""On which processors the thread that answers waits for the next request."""

import errno
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ossfs_py.fuse import nearness
from ossfs_py.fuse.nearness import Nearness

ALL = {0, 1, 2}
PROGRAM, OTHER = 100, 200
FAST, SLOW = 30e-6, 100e-6


class Machine:
    """A thread that answers requests on processors that the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cpuset = set(ALL)
        self.wanted = set(ALL)
        """What was asked for last, which Linux 6.2 and later remember."""
        self.calls: list[set[int]] = []
        """Each time that one processor was asked for."""
        self.runs_on: dict[int, int] = {PROGRAM: 1, OTHER: 2}
        self.fails = False
        self.nearness = Nearness(self.runs_on.get, lambda: self.now)

    @property
    def permitted(self) -> set[int]:
        return self.wanted & self.cpuset or set(self.cpuset)

    def permit(self, _thread: int, processors: set[int]) -> None:
        if self.fails:
            raise OSError(errno.EINVAL, "no such processor")
        self.wanted = set(processors)
        if len(processors) == 1:
            self.calls.append(self.permitted)

    def ask(self, seconds: float, *threads: int, judgements: int = 1) -> None:
        """Requests of these threads in turn, until it was looked at the clock so often."""
        for number in range(judgements * nearness._JUDGED_REQUESTS):
            self.now += seconds
            self.nearness.asker = threads[number % len(threads)]
            self.nearness.asked += 1
            self.nearness.before_wait()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    made.nearness._every = ALL | {3, 4}  # that are not there, or not the cgroup's
    fake = SimpleNamespace(
        sched_getaffinity=lambda _thread: set(made.permitted), sched_setaffinity=made.permit
    )
    monkeypatch.setattr(nearness, "os", fake)
    yield made
    made.nearness.roam()
    assert made.permitted == ALL


def test_it_waits_where_the_one_program_runs_while_that_is_faster(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    assert machine.permitted == {1}
    machine.ask(FAST, PROGRAM, judgements=10)
    assert machine.calls == [{1}]  # no system call a request
    machine.runs_on[PROGRAM] = 2
    machine.ask(FAST, PROGRAM)
    assert machine.permitted == {2}


def test_what_may_start_threads_runs_anywhere(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    machine.nearness.roam()
    assert machine.permitted == ALL
    machine.nearness.before_wait()
    assert machine.permitted == {1}


def test_it_leaves_if_that_is_not_faster_and_tries_again_later(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    machine.ask(SLOW, PROGRAM)
    assert machine.permitted == {1}  # once may be an accident
    machine.ask(SLOW, PROGRAM)
    assert machine.permitted == ALL
    machine.ask(SLOW, PROGRAM, judgements=5)
    assert machine.permitted == ALL
    machine.now += nearness._FIRST_PAUSE_SECONDS
    machine.ask(SLOW, PROGRAM, judgements=2)
    assert machine.permitted == {1}
    machine.ask(SLOW, PROGRAM, judgements=2)
    assert machine.permitted == ALL
    machine.now += nearness._FIRST_PAUSE_SECONDS
    machine.ask(SLOW, PROGRAM, judgements=2)
    assert machine.permitted == ALL  # the pause is longer now


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [(2 * nearness._RARE_SECONDS, (PROGRAM,)), (SLOW, (PROGRAM, OTHER)), (SLOW, (0,))],
    ids=["rare", "two at once", "of nobody known"],
)
def test_others_are_waited_for_anywhere(
    machine: Machine, seconds: float, threads: tuple[int, ...]
) -> None:
    machine.ask(seconds, *threads, judgements=5)
    assert machine.calls == []


def test_a_program_that_is_not_alone_any_more_is_left(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    machine.ask(FAST, PROGRAM, OTHER, judgements=2)
    assert machine.permitted == ALL


def test_another_programs_answer_is_followed_by_a_wait_anywhere(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    assert machine.nearness.before_wait()
    machine.nearness.asker = OTHER
    assert not machine.nearness.before_wait()
    assert machine.permitted == ALL


def test_a_processor_that_is_gone_ends_it(machine: Machine) -> None:
    machine.fails = True
    machine.ask(SLOW, PROGRAM, judgements=5)
    machine.fails = False
    machine.ask(SLOW, PROGRAM, judgements=5)
    assert machine.calls == []


def test_one_processor_is_left_alone(machine: Machine) -> None:
    machine.cpuset = {1}
    machine.ask(SLOW, PROGRAM, judgements=5)
    assert machine.calls == []
    machine.cpuset = set(ALL)


@pytest.mark.parametrize("wanted", [{0, 1}, {0, 2}, {2}])
def test_what_an_administrator_says_while_it_is_near_holds(
    machine: Machine, wanted: set[int]
) -> None:
    machine.ask(SLOW, PROGRAM)
    assert machine.permitted == {1}
    machine.wanted = set(wanted)
    machine.nearness.roam()
    assert machine.permitted == wanted
    assert machine.nearness.before_wait() == (1 in wanted)
    machine.nearness.roam()
    assert machine.permitted == wanted
    machine.ask(FAST, PROGRAM, judgements=3)
    machine.nearness.roam()
    assert machine.permitted == wanted
    machine.wanted = set(ALL)


def test_what_an_administrator_says_while_it_roams_holds(machine: Machine) -> None:
    machine.ask(SLOW, PROGRAM)
    machine.nearness.roam()
    machine.wanted = {0, 1}
    assert machine.nearness.before_wait()
    assert machine.permitted == {1}
    machine.nearness.roam()
    assert machine.permitted == {0, 1}
    machine.wanted = set(ALL)


@pytest.mark.parametrize("is_near", [True, False])
@pytest.mark.parametrize("smaller", [{0, 1}, {0, 2}, {1}, {2}])
def test_a_cgroup_that_shrinks_and_grows_gives_all_processors_again(
    machine: Machine, smaller: set[int], is_near: bool
) -> None:
    machine.ask(SLOW, PROGRAM)
    if not is_near:
        machine.nearness.roam()
    machine.cpuset = set(smaller)
    for _ in range(3):
        machine.nearness.roam()
        assert machine.permitted == smaller
        machine.nearness.before_wait()
    machine.nearness.roam()
    machine.cpuset = set(ALL)
    assert machine.permitted == ALL


def test_the_kernel_tells_where_a_thread_runs() -> None:
    told = nearness._processor_of(threading.get_native_id())
    assert told in os.sched_getaffinity(0)
    assert nearness._processor_of(0) is None
