"""Descriptors are left for readers, whoever writes."""

import pytest

from ossfs_py.errors import TooManyFilesError
from ossfs_py.runtime.descriptors import Descriptors

LIMIT = 100_000
WRITERS = LIMIT // 4


def test_writers_get_a_quarter_of_all_descriptors() -> None:
    descriptors = Descriptors(LIMIT)
    for _ in range(WRITERS):
        descriptors.add_writer(7)
    with pytest.raises(TooManyFilesError):
        descriptors.add_writer(8)
    descriptors.remove_writer(7)
    descriptors.add_writer(8)


def test_no_user_gets_more_than_half_of_what_is_free() -> None:
    descriptors = Descriptors(LIMIT, shared=True)
    with pytest.raises(TooManyFilesError, match="user 7"):
        for _ in range(WRITERS):
            descriptors.add_writer(7)
    for _ in range(WRITERS // 4):
        descriptors.add_writer(8)


def test_writers_are_refused_and_reads_kept_in_memory_before_descriptors_run_out() -> None:
    # This process has some open, whatever it does.
    descriptors = Descriptors(4)
    assert not descriptors.may_keep_file()
    with pytest.raises(TooManyFilesError):
        descriptors.add_writer(7)
    assert Descriptors(LIMIT).may_keep_file()
