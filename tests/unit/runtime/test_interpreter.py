"""A thread that computes does not keep the others from Python's lock for long; garbage is rare."""

import gc
import sys

from ossfs_py.runtime.interpreter import (
    COLLECT_AFTER,
    SWITCH_SECONDS,
    collect_rarely,
    share_fairly,
)


def test_a_thread_that_waits_for_the_lock_has_it_within_a_millisecond() -> None:
    before = sys.getswitchinterval()
    try:
        share_fairly()
        assert sys.getswitchinterval() == SWITCH_SECONDS <= 0.001
    finally:
        sys.setswitchinterval(before)


def test_python_does_not_look_for_garbage_after_each_few_files() -> None:
    before = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.get_threshold() == (COLLECT_AFTER, *before[1:])
    finally:
        gc.set_threshold(*before)
