"""Who wrote a file is stored with it where that is asked for, and never said of bytes of others."""

import os
import pwd
import socket
from datetime import UTC, datetime, timedelta

from ossfs_py.filesystem.writers import WRITER, WRITTEN, signed


def test_user_machine_and_time_are_stored_beside_what_was_there() -> None:
    told = signed({"mode": "33188"}, os.getuid(), record=True)
    assert told["mode"] == "33188"
    assert told[WRITER] == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    written = datetime.fromisoformat(told[WRITTEN])
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


def test_a_user_without_a_name_is_told_by_number() -> None:
    assert signed({}, 4_000_000_001, record=True)[WRITER].startswith("4000000001@")


def test_who_wrote_earlier_bytes_is_not_said_of_new_ones() -> None:
    before = signed({"mode": "33188"}, 0, record=True)
    assert signed(before, 0, record=False) == {"mode": "33188"}


def test_where_there_is_no_room_the_writer_is_left_out() -> None:
    full = {"xattr": "x" * 2000}
    assert signed(full, 0, record=True) == full
