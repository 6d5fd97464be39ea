"""Copies that leave Python's lock to others."""

import os

import pytest

from ossfs_py.runtime.copying import copy_unlocked
from ossfs_py.runtime.slabs import mapping


@pytest.mark.parametrize("size", [0, 1, 4096, 64 * 1024, 1024**2 + 13])
@pytest.mark.parametrize("source_is_readonly", [False, True])
def test_all_bytes_arrive_and_no_others_change(size: int, source_is_readonly: bool) -> None:
    content = os.urandom(size)
    source = memoryview(content if source_is_readonly else bytearray(content))
    memory = memoryview(mapping(2 * 1024**2))
    copy_unlocked(memory[777 : 777 + size], source)
    assert memory[777 : 777 + size] == content
    assert not any(memory[:777])
    assert not any(memory[777 + size : 777 + size + 4096])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="fit"):
        copy_unlocked(memoryview(bytearray(1024**2)), memoryview(bytearray(1024**2 + 1)))


def test_memory_can_be_freed_afterwards() -> None:
    memory = mapping(1024**2)
    view = memoryview(memory)
    copy_unlocked(view, memoryview(bytearray(1024**2)))
    view.release()
    memory.close()
