"""The control socket: what a client is told, whatever it sends, and what the server survives."""

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from ossfs_py.control import server as control
from ossfs_py.control.client import ControlClient, mount_of
from ossfs_py.control.server import Arguments, Command, ControlError, Progress, controlled
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import Machine
from ossfs_py.host.mounttable import MountEntry
from ossfs_py.host.running import SOCKET_NAME, RunningMount, registered
from ossfs_py.host.standing import Seen, Standing
from tests.support.trio_tests import in_trio


@pytest.fixture
def runtime() -> Iterator[Path]:
    # Short: the path of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ossfs-") as path:
        yield Path(path)


async def echo(arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
    return {"said": arguments.text("word")}


async def count(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
    for number in range(arguments.number("upto", 3)):
        await progress({"number": number})
    return {"counted": True}


async def refuse(_arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
    raise ControlError("it cannot be done")


async def crash(_arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
    raise ZeroDivisionError("a programming error")


COMMANDS: dict[str, Command] = {"echo": echo, "count": count, "refuse": refuse, "crash": crash}


@asynccontextmanager
async def served(runtime: Path, commands: Mapping[str, Command] = COMMANDS) -> AsyncIterator[Path]:
    path = runtime / SOCKET_NAME
    async with controlled(path, commands):
        yield path


async def exchange(path: Path, *sent: bytes, end: bool = False) -> list[dict[str, Any]]:
    """Everything the server answers to what was sent, until it closes the connection."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        for piece in sent:
            try:
                await stream.send_all(piece)
            except trio.BrokenResourceError:
                break
        if end:
            await stream.send_eof()
        received = b""
        try:
            async for piece in stream:
                received += piece
        except trio.BrokenResourceError:
            pass  # closed on us with bytes unread
    return [json.loads(line) for line in received.splitlines()]


def line(command: str, **arguments: object) -> bytes:
    return json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"


@in_trio
async def test_a_request_gets_its_result(runtime: Path) -> None:
    async with served(runtime) as path:
        assert await exchange(path, line("echo", word="é")) == [{"result": {"said": "é"}}]


@in_trio
async def test_progress_comes_before_the_result(runtime: Path) -> None:
    async with served(runtime) as path:
        answers = await exchange(path, line("count", upto=2))
    assert answers == [
        {"progress": {"number": 0}},
        {"progress": {"number": 1}},
        {"result": {"counted": True}},
    ]


@in_trio
async def test_the_socket_is_for_its_owner_only(runtime: Path) -> None:
    async with served(runtime) as path:
        mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@in_trio
async def test_another_user_is_refused_even_past_the_permissions(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(runtime) as path:
        with monkeypatch.context() as patched:
            patched.setattr(control, "CREDENTIALS", FakeCredentials())
            (answer,) = await exchange(path, line("echo", word="x"))
    assert "owner" in answer["error"]


class FakeCredentials:
    size = 12

    def unpack(self, _raw: bytes) -> tuple[int, int, int]:
        return 1, os.geteuid() + 4711, 0


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"hello\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 200_000 + b"\n", "not JSON"),
        (b"[1]\n", "not JSON object"),
        (b"{}\n", "needs a command"),
        (b'{"command": 7}\n', "needs a command"),
        (b'{"command": "echo", "arguments": []}\n', "arguments as an object"),
        (b'{"command": "fly"}\n', "no command 'fly'"),
        (line("echo"), "needs a text as 'word'"),
        (line("echo", word=7), "needs a text as 'word'"),
        (line("count", upto="7"), "whole number as 'upto'"),
        (line("refuse"), "it cannot be done"),
        (b"\n", "not JSON"),
    ],
)
@in_trio
async def test_a_bad_request_is_answered_in_a_sentence(
    runtime: Path, sent: bytes, told: str
) -> None:
    async with served(runtime) as path:
        (answer,) = await exchange(path, sent)
        assert told in answer["error"]
        assert await exchange(path, line("echo", word="on")) == [{"result": {"said": "on"}}]


@in_trio
async def test_a_request_cut_short_is_told(runtime: Path) -> None:
    async with served(runtime) as path:
        (answer,) = await exchange(path, b'{"command"', end=True)
    assert "ended early" in answer["error"]


@in_trio
async def test_an_endless_request_is_bounded(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MAX_REQUEST_BYTES", 1000)
    async with served(runtime) as path:
        answers = await exchange(path, b"x" * 100_000)
        assert not answers or "longer than" in answers[0]["error"]
        assert await exchange(path, line("echo", word="on")) == [{"result": {"said": "on"}}]


@in_trio
async def test_a_silent_client_is_let_go(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_REQUEST_SECONDS", 0.01)
    async with served(runtime) as path:
        (answer,) = await exchange(path)
    assert "no request within" in answer["error"]


@in_trio
async def test_a_crash_in_a_command_is_logged_and_told(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(runtime) as path:
        (answer,) = await exchange(path, line("crash"))
        assert await exchange(path, line("echo", word="on")) == [{"result": {"said": "on"}}]
    assert "log says why" in answer["error"]
    assert "ZeroDivisionError" in caplog.text


@in_trio
async def test_a_client_that_goes_away_cancels_its_command(runtime: Path) -> None:
    began, ended = trio.Event(), trio.Event()

    async def wait(_arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with served(runtime, {"wait": wait}) as path:
        stream = await trio.open_unix_socket(path)
        await stream.send_all(line("wait"))
        await began.wait()
        await stream.aclose()
        await ended.wait()


@in_trio
async def test_a_client_that_does_not_read_progress_harms_nobody(runtime: Path) -> None:
    async with served(runtime) as path:
        stream = await trio.open_unix_socket(path)
        await stream.send_all(line("count", upto=1_000_000))
        assert await exchange(path, line("echo", word="on")) == [{"result": {"said": "on"}}]
        await stream.aclose()
        assert await exchange(path, line("echo", word="on")) == [{"result": {"said": "on"}}]


# -- the client ------------------------------------------------------------------------------

MOUNT = RunningMount(os.getpid(), "/mnt/models", "bucket", "cache")


@asynccontextmanager
async def running_mount(runtime: Path, mountpoint: Path) -> AsyncIterator[None]:
    record = RunningMount(os.getpid(), str(mountpoint), "bucket", "cache")
    with registered(record, (runtime,)) as directory:
        async with controlled(directory / SOCKET_NAME, COMMANDS):
            yield


def entry(path: Path, kind: str = "fuse.ossfs-py") -> MountEntry:
    return MountEntry(path, kind, "bucket", f"rw,user_id={os.geteuid()},group_id=0")


def use_runtime(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    monkeypatch.setattr("ossfs_py.host.running.runtime_dirs", lambda _uid: (runtime,))


async def in_thread(call: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(call)


@in_trio
async def test_the_client_hears_progress_and_result(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_runtime(monkeypatch, runtime)
    heard: list[Mapping[str, Any]] = []
    async with running_mount(runtime, Path("/mnt/models")):
        with ControlClient.of(entry(Path("/mnt/models"))) as client:
            assert client.mount == RunningMount(os.getpid(), "/mnt/models", "bucket", "cache")
            result = await in_thread(partial(client.call, "count", {"upto": 2}, heard.append))
    assert result == {"counted": True}
    assert heard == [{"number": 0}, {"number": 1}]


@in_trio
async def test_the_client_passes_on_the_daemons_sentence(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_runtime(monkeypatch, runtime)
    async with running_mount(runtime, Path("/mnt/models")):
        with (
            ControlClient.of(entry(Path("/mnt/models"))) as client,
            pytest.raises(EnvironmentProblemError, match=r"^it cannot be done$"),
        ):
            await in_thread(partial(client.call, "refuse"))


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        (Standing.DEAD, "/mnt/models is gone: run 'ossfs-py umount"),
        (Standing.SERVED_ELSEWHERE, "/mnt/models is alive, but its daemon runs in another cont"),
    ],
)
def test_a_daemon_that_cannot_be_asked_is_called_gone_only_when_the_kernel_says_so(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, standing: Standing, told: str
) -> None:
    use_runtime(monkeypatch, runtime)
    monkeypatch.setattr("ossfs_py.control.client.look_at", lambda path: Seen(path, standing))
    with pytest.raises(EnvironmentProblemError, match=told) as caught:
        ControlClient.of(entry(Path("/mnt/models")))
    assert ("umount" in str(caught.value)) == (standing is Standing.DEAD)


def test_a_daemon_that_hangs_up_is_told(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_runtime(monkeypatch, runtime)
    with registered(MOUNT, (runtime,)) as directory:
        # A socket that nobody listens on any more, as a killed daemon leaves it.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(directory / SOCKET_NAME))
        with (
            ControlClient.of(entry(Path("/mnt/models"))) as client,
            pytest.raises(EnvironmentProblemError, match="gone or does not answer"),
        ):
            client.call("echo")


@pytest.mark.parametrize(
    "said",
    [b"[" * 100_000 + b"\n", b"7\n", b'{"result": 7}\n', b'{"progress": []}\n', b"\xff\n", b"{}\n"],
    ids=["nested", "number", "result", "progress", "no text", "empty"],
)
def test_an_answer_that_no_daemon_of_ours_gives_is_told_in_one_sentence(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    use_runtime(monkeypatch, runtime)
    with (
        registered(MOUNT, (runtime,)) as directory,
        hostile(directory / SOCKET_NAME, said),
        ControlClient.of(entry(Path("/mnt/models"))) as client,
        pytest.raises(EnvironmentProblemError, match="gone or does not answer"),
    ):
        client.call("echo")


def test_an_endless_answer_is_given_up(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_runtime(monkeypatch, runtime)
    monkeypatch.setattr("ossfs_py.control.client._MAX_ANSWER_BYTES", 1000)
    said = b'{"result": {"word": "' + b"x" * 10_000 + b'"}}\n'
    with (
        registered(MOUNT, (runtime,)) as directory,
        hostile(directory / SOCKET_NAME, said),
        ControlClient.of(entry(Path("/mnt/models"))) as client,
        pytest.raises(EnvironmentProblemError, match="gone or does not answer"),
    ):
        client.call("echo")


@contextmanager
def hostile(path: Path, said: bytes) -> Iterator[None]:
    """Somebody who answers every request with ``said``."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # Whoever only looks who listens here goes away at once.
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def machine(tmp_path: Path, *mounts: tuple[Path, str]) -> Machine:
    table = tmp_path / "mountinfo"
    lines = [f"1 0 0:1 / {path} rw - {kind} src rw,user_id=0" for path, kind in mounts]
    table.write_text("\n".join(lines) + "\n")
    return Machine(mount_table=table)


def test_the_deepest_mount_around_a_path_is_meant(tmp_path: Path) -> None:
    outer, inner = tmp_path / "a", tmp_path / "a/b"
    table = machine(
        tmp_path, (Path("/"), "ext4"), (outer, "fuse.ossfs-py"), (inner, "fuse.ossfs-py")
    )
    assert mount_of(inner / "c/d", table)[0].mountpoint == inner
    assert mount_of(inner / "c/d", table)[1] == "c/d"
    assert mount_of(outer / "x", table)[0].mountpoint == outer
    assert mount_of(outer, table)[1] == ""


def test_links_into_a_mount_are_followed(tmp_path: Path) -> None:
    mounted = tmp_path / "mnt"
    mounted.mkdir()
    (tmp_path / "link").symlink_to(mounted)
    table = machine(tmp_path, (mounted, "fuse.ossfs-py"))
    assert mount_of(tmp_path / "link/model", table)[1] == "model"


def test_a_path_outside_every_mount_is_told(tmp_path: Path) -> None:
    table = machine(tmp_path, (Path("/"), "ext4"), (tmp_path / "other", "fuse.sshfs"))
    for path in (tmp_path / "x", tmp_path / "other/x"):
        with pytest.raises(EnvironmentProblemError, match="outside every ossfs-py mount"):
            mount_of(path, table)
