"""A thread that computes does not keep the others from Python's lock for long."""

import sys

from ossfs_py.runtime.interpreter import SWITCH_SECONDS, share_fairly


def test_a_thread_that_waits_for_the_lock_has_it_within_a_millisecond() -> None:
    before = sys.getswitchinterval()
    try:
        share_fairly()
        assert sys.getswitchinterval() == SWITCH_SECONDS <= 0.001
    finally:
        sys.setswitchinterval(before)
