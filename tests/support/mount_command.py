"""``ossfs-py mount`` as a command, and what it must not leave behind when it fails."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.commands import Outcome, ordinary_user, ossfs
from tests.support.mounting import is_mounted


class Place:
    """A mountpoint and the directories a daemon may use, all fresh."""

    def __init__(self, root: Path, endpoint: str, bucket: str, keys: Mapping[str, str]) -> None:
        self.root = root
        self.bucket = bucket
        self.endpoint = endpoint
        self.keys = dict(keys)
        self.mountpoint = root / "mnt"
        self.mountpoint.mkdir()
        (root / "temp").mkdir()
        self.flags: dict[str, str] = {
            "--endpoint": endpoint,
            "--temp-dir": str(root / "temp"),
            "--state-dir": str(root / "state"),
            "--log-file": str(root / "log"),
        }

    def mount(self, *more: str, wrapper: Sequence[str] = ()) -> Outcome:
        words = [word for flag in self.flags.items() for word in flag]
        return ossfs(
            *("mount", self.bucket, self.mountpoint, *words, *more),
            environment=self.keys,
            wrapper=wrapper,
        )

    def refused(self, *more: str, code: int = 1, wrapper: Sequence[str] = ()) -> str:
        """The sentence of a mount that fails and leaves nothing behind."""
        mounted = is_mounted(self.mountpoint)
        outcome = self.mount(*more, wrapper=wrapper)
        assert outcome.code == code, outcome
        assert outcome.out == ""
        assert is_mounted(self.mountpoint) == mounted
        self.assert_nothing_left()
        return outcome.sentence

    def assert_nothing_left(self) -> None:
        assert not daemons_of(self.mountpoint)
        assert not list((self.root / "temp").iterdir())
        kept = [path for path in (self.root / "state").rglob("*") if path.is_file()]
        assert [path.name for path in kept if path.name != "lock"] == []
        log = self.root / "log"
        text = log.read_text() if log.exists() else ""
        assert "Traceback" not in text
        for secret in self.keys.values():
            assert len(secret) < 20 or secret not in text


def daemons_of(mountpoint: Path) -> list[str]:
    """Processes that were told to mount there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mount" in words and os.fsencode(mountpoint) in words:
            found.append(process.name)
    return found


def credentials(place: Place, text: str, mode: int) -> Path:
    """A file with these keys, which become the only ones."""
    path = place.root / "keys"
    path.write_text(text)
    path.chmod(mode)
    place.keys = {}
    return path


def hand_over(place: Place) -> None:
    """Give the directories to an ordinary user."""
    if os.geteuid() == 0:
        for path in (place.root, *place.root.iterdir()):
            os.chown(path, *ordinary_user())
    assert stat.S_ISDIR(place.mountpoint.stat().st_mode)


@contextlib.contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that answers every request with the same few words; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_HEAD = do_GET  # noqa: N815 (the name is http.server's)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
