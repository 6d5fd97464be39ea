"""Who closes a file: the caller, or a thread where the kernel would make the caller wait."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from ossfs_py.runtime.closing import close_behind

MIB = 1024**2


@pytest.mark.parametrize(
    ("mib", "named", "behind"), [(40, False, True), (1, False, False), (40, True, False)]
)
def test_a_thread_closes_what_the_kernel_would_truncate_for_long(
    tmp_path: Path, mib: int, named: bool, behind: bool
) -> None:
    descriptor, name = tempfile.mkstemp(dir=tmp_path)
    os.posix_fallocate(descriptor, 0, mib * MIB)
    if not named:
        Path(name).unlink()
    closers: list[threading.Thread] = []
    closed = threading.Event()

    def close() -> None:
        closers.append(threading.current_thread())
        os.close(descriptor)
        closed.set()

    close_behind(descriptor, close)
    assert closed.wait(60)
    assert (closers != [threading.current_thread()]) == behind
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_caller_closes_it_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with tempfile.TemporaryFile(dir=tmp_path, buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 40 * MIB)
        close_behind(file.fileno(), file.close)
        assert file.closed
