"""Real mounts for tests: one daemon process each, always ended, its log at hand."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ossfs_py.host.mountpoint import THIS_MACHINE
from tests.support import daemons

DATA_PATHS = ("temp", "cache", "direct")
READY_SECONDS = END_SECONDS = 120.0
"""Whoever takes longer hangs; on a busy machine either has taken 20 s."""
BUSY_SECONDS = 0.1
Option = str | int | float | bool | Path


class MountFailedError(Exception):
    """The daemon ended, or did not answer in time; carries its log."""


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly here, a dead FUSE mount included."""
    return bool(THIS_MACHINE.mounts_at(path))


class Mount:
    """``ossfs-py mount BUCKET DIR --foreground`` in a process of its own.

    ``options`` become long flags: ``data_path="direct", read_only=True``. Everything the daemon
    may write lies below ``work``. ``executed``: the test is about what a start brings with it
    (which modules, how much memory, how long); others are spared it (:mod:`tests.support.daemons`).
    """

    def __init__(
        self,
        source: str,
        work: Path,
        *,
        endpoint: str,
        environment: Mapping[str, str],
        executed: bool = False,
        **options: Option,
    ) -> None:
        self.source = source
        self.path = work / "mnt"
        self.temp_dir = work / "temp"
        self.cache_dir = work / "cache"
        self.state_dir = work / "state"
        self.log_path = work / "daemon.log"
        for directory in (self.path, self.temp_dir, self.cache_dir, self.state_dir):
            directory.mkdir(parents=True, mode=0o700)
        self.options: dict[str, Option] = {
            "endpoint": endpoint,
            "temp_dir": self.temp_dir,
            "state_dir": self.state_dir,
            # What another client makes is there for the next look; tests of absences say otherwise.
            "negative_ttl": 0,
            **options,
        }
        if self.options.get("data_path") == "cache":
            self.options.setdefault("cache_dir", self.cache_dir)
        self.environment = {
            **{name: value for name, value in os.environ.items() if _harmless(name)},
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        # Such a mount starts its daemons by itself, each by the command.
        self._executed = executed or bool({"restarts", "keeper"} & self.options.keys())
        self.mount_seconds = 0.0
        self._process: daemons.Daemon | None = None

    # -- life ------------------------------------------------------------------------------

    @property
    def arguments(self) -> list[str]:
        """The whole command line."""
        flags = [_flag(name, value) for name, value in self.options.items() if value is not False]
        return [
            *(sys.executable, "-m", "ossfs_py", "mount", self.source, str(self.path)),
            "--foreground",
            *flags,
        ]

    def start(self) -> Self:
        """Mount and return when the mount answers.

        Raises:
            MountFailedError: it does not come up.
        """
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            start = daemons.execute if self._executed else daemons.fork
            self._process = start(self.arguments, self.environment, log)
        try:
            self._wait_until_mounted(began + READY_SECONDS)
            os.statvfs(self.path)
        except BaseException:
            self.close()
            raise
        self.mount_seconds = time.monotonic() - began
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def unmount(self) -> int:
        """Unmount as a user does and return the daemon's exit code.

        A program that was killed holds its files for a moment longer; a user would try again.
        """
        command = ["fusermount3", "-u", str(self.path)]
        deadline = time.monotonic() + END_SECONDS
        while subprocess.run(command, check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise MountFailedError(f"{self.path} stays busy\n{self.log}")
            time.sleep(BUSY_SECONDS)
        return self.wait()

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the daemon and return its exit code."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """The daemon's exit code, once it has ended."""
        assert self._process is not None
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.send_signal(signal.SIGUSR1)
                self._process.wait(1)
            raise MountFailedError(f"it does not end\n{self.log}") from None

    def close(self) -> None:
        """End the mount by whatever it takes; harmless when it has ended."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            subprocess.run(
                ["fusermount3", "-u", "-z", str(self.path)], check=False, capture_output=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        if is_mounted(self.path):
            subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=True)

    # -- what the daemon does ----------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None, "not mounted"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the daemon lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything the daemon has said so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the daemon."""
        return self._status_kib("VmRSS") * 1024

    @property
    def peak_rss_bytes(self) -> int:
        """Largest resident memory of the daemon so far."""
        return self._status_kib("VmHWM") * 1024

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all the daemon's threads so far, in ticks of a hundredth second."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def disk_write_bytes(self) -> int:
        """Bytes the daemon has caused to be written to any disk (page cache included)."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def open_files(self) -> list[str]:
        """What the daemon's descriptors refer to, deleted files included."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(entry.readlink()))
        return found

    def local_files(self) -> list[Path]:
        """Regular files below the daemon's temporary and cache directories."""
        return [
            path
            for directory in (self.temp_dir, self.cache_dir)
            for path in directory.rglob("*")
            if path.is_file()
        ]

    def _status_kib(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise MountFailedError(f"the daemon has ended\n{self.log}")

    def _wait_until_mounted(self, deadline: float) -> None:
        """The kernel tells of every change of the mount table, and of the process's end."""
        assert self._process is not None
        with Path("/proc/self/mountinfo").open() as table:
            ended = os.pidfd_open(self._process.pid)
            try:
                events = select.poll()
                events.register(table, select.POLLPRI | select.POLLERR)
                events.register(ended, select.POLLIN)
                while not is_mounted(self.path):
                    if self._process.poll() is not None:
                        raise MountFailedError(f"exit code {self._process.returncode}\n{self.log}")
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise MountFailedError(f"not mounted in {READY_SECONDS} s\n{self.log}")
                    events.poll(left * 1000)
            finally:
                os.close(ended)


def wait_for_log(mounted: Mount, text: str) -> None:
    """Until the daemon has said it."""
    deadline = time.monotonic() + END_SECONDS
    while text not in mounted.log:
        assert time.monotonic() < deadline, mounted.log
        time.sleep(BUSY_SECONDS)


def _flag(name: str, value: Option) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def _harmless(name: str) -> bool:
    """No credentials, settings or proxies of the person who runs the tests."""
    upper = name.upper()
    return not (upper.startswith(("AWS_", "OSS_", "OSSFS_PY_")) or upper.endswith("_PROXY"))
