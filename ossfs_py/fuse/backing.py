"""Local files that the kernel reads itself for programs: FUSE passthrough (Linux 6.9, root)."""

import fcntl
import logging
import struct

log = logging.getLogger(__name__)

_OPEN = 0x4010E501
"""FUSE_DEV_IOC_BACKING_OPEN: _IOW(229, 1, struct fuse_backing_map)."""
_CLOSE = 0x4004E502
"""FUSE_DEV_IOC_BACKING_CLOSE: _IOW(229, 2, uint32_t)."""
_MAP = struct.Struct("=iIQ")
"""struct fuse_backing_map: descriptor, flags, padding."""
_NUMBER = struct.Struct("=I")


class Backings:
    """Registers local files with the kernel, through its descriptor of the mount."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._is_refused = False

    def open(self, fd: int) -> int | None:
        """Register a file; returns the kernel's number for it, or None if the kernel refuses.

        The kernel keeps the file open until :meth:`close`, and longer for programs that have it
        open then.
        """
        if self._is_refused:
            return None
        try:
            # Unless the buffer is mutable, the number that the call returns is lost.
            return int(fcntl.ioctl(self._device, _OPEN, bytearray(_MAP.pack(fd, 0, 0)), True))
        except OSError as exc:
            self._is_refused = True
            log.info("the kernel does not read cached files itself: %s", exc.strerror)
            return None

    def close(self, number: int) -> None:
        """Release the number: no later open uses the file."""
        try:
            fcntl.ioctl(self._device, _CLOSE, _NUMBER.pack(number))
        except OSError as exc:
            log.debug("the kernel does not let go of file %d: %s", number, exc.strerror)
