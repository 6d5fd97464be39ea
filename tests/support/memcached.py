"""A real memcached on a free port of this machine, and what tests do to it."""

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import unquote_to_bytes

READY_SECONDS = 20


def free_port() -> int:
    """A port that nobody listens on for now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Memcached:
    """One node; ends with the test, however that ends."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self._options = options or ("-m", "256", "-I", "4m")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As ``--shared-cache`` takes it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, empty, and return when it answers."""
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "memcached", "-u", "nobody", "-t", "2"),
                *("-l", "127.0.0.1", "-p", str(self.port), *self._options),
            ]
        )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.ask(b"mn\r\n")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise
                time.sleep(0.01)
            else:
                return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, command: bytes, ends: bytes = b"\r\n") -> bytes:
        """The answer to a command, up to what it ``ends`` with."""
        with socket.create_connection(("127.0.0.1", self.port), READY_SECONDS) as sock:
            sock.sendall(command)
            answer = b""
            while not answer.endswith(ends):
                if not (more := sock.recv(1 << 20)):
                    raise ConnectionError("it closed the connection")
                answer += more
            return answer

    def statistic(self, name: str) -> int:
        """One of its statistics."""
        for line in self.ask(b"stats\r\n", b"END\r\n").splitlines():
            words = line.split()
            if words[1:2] == [name.encode()]:
                return int(words[2])
        raise KeyError(name)

    def stored(self) -> list[bytes]:
        """All keys, values or leases."""
        # By hash: of lists that are sorted meanwhile, as "all" walks them, some items are missed.
        dump = self.ask(b"lru_crawler metadump hash\r\n", b"END\r\n")
        return [
            unquote_to_bytes(line.split()[0].removeprefix(b"key="))
            for line in dump.splitlines()
            if line.startswith(b"key=")
        ]

    def value(self, key: bytes) -> bytes:
        """The value of a key."""
        # The no-op behind it tells where the value ends, whatever it holds.
        answer = self.ask(b"mg " + key + b" v\r\nmn\r\n", b"\r\nMN\r\n")
        line, _, rest = answer.partition(b"\r\n")
        return rest[: int(line.split()[1])]

    def put(self, key: bytes, value: bytes) -> None:
        """Replace a value, as somebody else on the network might."""
        assert self.ask(b"ms %b %d\r\n%b\r\n" % (key, len(value), value)).startswith(b"HD")

    def freeze(self) -> None:
        """Let it hang, all of its threads: the kernel still takes connections for it."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task")
        # The signal returns before a thread that runs has stopped, and that one answers once more.
        while any(_state(task) != "T" for task in tasks.iterdir()):
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _state(task: Path) -> str:
    """What the kernel says a thread is doing (proc(5))."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
