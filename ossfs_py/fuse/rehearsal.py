"""Whether libfuse and pyfuse3 would begin a mount as the serving daemon did."""

import os
import socket

import pyfuse3
import trio

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.filesystem.survival import Negotiated
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.options import FuseOptions
from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.session import libfuse_options

_ANSWER_SECONDS = 10.0
_ANSWER_BYTES = 4096


class _Stand(pyfuse3.Operations):
    """The part of an adapter that the answer to INIT depends on."""

    supports_dot_lookup = Adapter.supports_dot_lookup
    enable_writeback_cache = Adapter.enable_writeback_cache


def rehearse(negotiated: Negotiated, options: FuseOptions) -> None:
    """Begin as if the mount were taken over, without its descriptor.

    Blocks; there must be no session of pyfuse3 yet, and there is none afterwards.

    Raises:
        EnvironmentProblemError: the answer to INIT would differ from the one that the kernel got.
    """
    ours, theirs = socket_pair()
    with ours:
        number = theirs.detach()
        try:
            pyfuse3.init(_Stand(), f"/dev/fd/{number}", libfuse_options(options))
        except RuntimeError as exc:
            os.close(number)
            raise EnvironmentProblemError(f"libfuse does not begin: {exc}") from None
        try:
            answer = trio.run(_answer_to, negotiated.request, ours)
        finally:
            pyfuse3.close(unmount=False)
    if answer != negotiated.answered:
        raise EnvironmentProblemError(
            "this libfuse or pyfuse3 begins a mount otherwise than the one that it was mounted"
            " with: unmount, and mount again"
        )


async def _answer_to(request: bytes, ours: socket.socket) -> bytes:
    answer = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main, 1, 1)
        ours.send(request)
        with trio.move_on_after(_ANSWER_SECONDS):
            await trio.lowlevel.wait_readable(ours)
            answer = ours.recv(_ANSWER_BYTES)
        pyfuse3.terminate()
    return answer
