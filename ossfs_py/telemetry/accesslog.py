"""The access log: a line of JSON for each call of a program (``--access-log``)."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.telemetry.loghandlers import log_file


class AccessLog:
    """The access log is a separate file. Lines that cannot be written are counted, see
    ``loghandlers``."""

    def __init__(self, path: Path, size_bytes: int | None) -> None:
        """Open it; begin a new one at ``size_bytes``.

        Raises:
            EnvironmentProblemError: it cannot be written.
        """
        try:
            self._handler = log_file(path, size_bytes)
        except OSError as exc:
            raise EnvironmentProblemError(
                f"cannot write the access log {path}: {exc.strerror}"
            ) from exc

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add a line."""
        text = json.dumps(entry, ensure_ascii=False, default=str)
        self._handler.handle(
            logging.LogRecord(__name__, logging.INFO, "", 0, text, args=None, exc_info=None)
        )

    def reopen(self) -> None:
        """Open the file again, after logrotate has moved it away."""
        self._handler.reopen()

    def close(self) -> None:
        """Write out and close."""
        self._handler.close()
