"""Commands on a terminal."""

import os
import pty
import subprocess
import sys


def in_terminal(arguments: tuple[str, ...], environment: dict[str, str]) -> str:
    """What a command of ossfs-py writes to a terminal of its own; it has to go well."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ossfs_py", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    ) as running:
        os.close(follower)
        shown = b""
        try:
            while more := os.read(leader, 65536):
                shown += more
        except OSError:  # the other end is closed
            pass
        assert running.wait() == 0, shown
    os.close(leader)
    return shown.decode()
