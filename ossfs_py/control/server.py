"""The control socket of a running mount: how the command line asks its daemon for something.

A unix socket in the mount's private runtime directory. One request for each connection, a line of
JSON; the answers are lines too, the last one with the result or an error::

    -> {"command": "refresh", "arguments": {"path": "models"}}
    <- {"progress": {"files": 3}}           any number of these
    <- {"result": {"files": 7}}             or {"error": "one sentence"}

A client that goes away cancels its command.
"""

import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import trio

from ossfs_py.errors import EnvironmentProblemError, OssfsError
from ossfs_py.host.running import CREDENTIALS

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4 * 1024**2
"""Some 40,000 paths. Clients with longer lists send several requests."""

_REQUEST_SECONDS = 10.0
"""A client sends its line at once; one that does not is not ours."""
_RECEIVE_BYTES = 64 * 1024

Progress: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Sends one line of progress; waits while the client does not read."""


class ControlError(OssfsError):
    """The request cannot be done; the text is the sentence that the client gets."""


class Arguments:
    """The arguments of a request. Every method raises ControlError for one of the wrong kind."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: str | None = None) -> str:
        """A string; one without a default must be there."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise ControlError(f"the request needs a text as {name!r}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings, empty if absent."""
        value = self._values.get(name, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise ControlError(f"the request needs a list of texts as {name!r}")
        return value

    def values(self, name: str) -> Mapping[str, Any]:
        """An object, empty if absent."""
        value = self._values.get(name, {})
        if not isinstance(value, dict):
            raise ControlError(f"the request needs an object as {name!r}")
        return value

    def flag(self, name: str) -> bool:
        """A boolean, False if absent."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise ControlError(f"the request needs true or false as {name!r}")
        return value

    def number(self, name: str, default: int) -> int:
        """A whole number."""
        value = self._values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ControlError(f"the request needs a whole number as {name!r}")
        return value


Command: TypeAlias = Callable[[Arguments, Progress], Awaitable[Mapping[str, Any]]]
"""Does what a request asks for, and returns its result, which must be JSON.

An OssfsError becomes the sentence that the client gets. Cancelled when the client goes away.
"""


@asynccontextmanager
async def controlled(path: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    """Answer requests on a new socket at ``path`` for the time of the block; the file stays.

    Only the user this process runs as, and root, are answered.

    Raises:
        EnvironmentProblemError: the socket cannot be made.
    """
    async with _listen(path) as listener, trio.open_nursery() as nursery:
        server = _ControlServer(commands)
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield
        nursery.cancel_scope.cancel()


def _listen(path: Path) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The directory is private, so nobody slips in before the mode is set.
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen()
    except OSError as exc:
        sock.close()
        raise EnvironmentProblemError(f"cannot make the control socket {path}: {exc}") from exc
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


class _ControlServer:
    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, from its request to the last answer."""
        try:
            async with stream, trio.open_nursery() as nursery:
                client = _Client(stream, nursery.cancel_scope)
                await client.tell(await self._answer(client, nursery))
                nursery.cancel_scope.cancel()
        except Exception:
            # A connection that goes wrong is no reason to end the mount.
            log.exception("a control connection failed")

    async def _answer(self, client: "_Client", nursery: trio.Nursery) -> Mapping[str, Any]:
        try:
            if not client.is_allowed():
                raise ControlError("only the owner of the mount and root may do this")
            command, arguments = self._parse(await client.request())
            nursery.start_soon(client.cancel_when_gone)
            return {"result": await command(arguments, client.progress)}
        except OssfsError as exc:
            return {"error": str(exc)}
        except Exception:
            log.exception("a control command failed")
            return {"error": "the daemon failed at this; its log says why"}

    def _parse(self, line: bytes) -> tuple[Command, Arguments]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            raise ControlError("the request is not JSON") from None
        if not isinstance(request, dict):
            raise ControlError("the request is not JSON object")
        name, values = request.get("command"), request.get("arguments", {})
        if not isinstance(name, str) or not isinstance(values, dict):
            raise ControlError("the request needs a command, and its arguments as an object")
        command = self._commands.get(name)
        if command is None:
            raise ControlError(f"this mount knows no command {name!r}; is it of another version?")
        return command, Arguments(values)


class _Client:
    """The other side of one connection. ``scope`` is cancelled when it goes away."""

    def __init__(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope
        self._turn = trio.Lock()

    def is_allowed(self) -> bool:
        raw = self._stream.socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size
        )
        return CREDENTIALS.unpack(raw)[1] in (0, os.geteuid())

    async def request(self) -> bytes:
        line = bytearray()
        with trio.move_on_after(_REQUEST_SECONDS):
            while not line.endswith(b"\n"):
                piece = await self._receive()
                if not piece:
                    raise ControlError("the request ended early")
                line += piece
                if len(line) > MAX_REQUEST_BYTES:
                    raise ControlError(f"the request is longer than {MAX_REQUEST_BYTES} bytes")
            return bytes(line)
        raise ControlError(f"no request within {_REQUEST_SECONDS:g} s")

    async def progress(self, values: Mapping[str, Any]) -> None:
        await self.tell({"progress": values})

    async def tell(self, answer: Mapping[str, Any]) -> None:
        line = json.dumps(answer).encode() + b"\n"
        try:
            async with self._turn:
                await self._stream.send_all(line)
        except trio.BrokenResourceError:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()

    async def cancel_when_gone(self) -> None:
        # Nothing more is sent after the request: its end says that nobody waits for the answer.
        while await self._receive():
            pass
        self._scope.cancel()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE_BYTES))
        except trio.BrokenResourceError:
            return b""
