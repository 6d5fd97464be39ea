"""The metrics of the mount's daemon, read through its control socket."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ossfs_py.control.client import ControlClient


@dataclass(frozen=True, slots=True)
class Spending:
    """The cost of a daemon, for all programs that use its mount."""

    cpu_seconds: float
    received_bytes: int
    """Object bytes from the store."""
    sent_bytes: int
    requests: int

    def __sub__(self, earlier: Self) -> "Spending":
        return Spending(
            self.cpu_seconds - earlier.cpu_seconds,
            self.received_bytes - earlier.received_bytes,
            self.sent_bytes - earlier.sent_bytes,
            self.requests - earlier.requests,
        )


class ObservedDaemon:
    """The daemon behind the mount that is measured."""

    def __init__(self, client: ControlClient, below: str) -> None:
        self._client = client
        self._below = below
        """The measured directory, relative to the mountpoint."""

    def spending(self) -> Spending:
        """Spent so far.

        Raises:
            EnvironmentProblemError: it does not answer.
        """
        metrics = self._client.call("stats")["metrics"]
        samples = {name: _sum(family) for name, family in metrics.items()}
        return Spending(
            samples["process_cpu_seconds"],
            int(samples["ossfs_store_received_bytes"]),
            int(samples["ossfs_store_sent_bytes"]),
            int(samples["ossfs_store_requests"]),
        )

    def forget_names(self, directory: str) -> None:
        """Make the next look at a directory below the measured one ask the store.

        Raises:
            EnvironmentProblemError: it does not answer.
        """
        path = f"{self._below}/{directory}" if self._below else directory
        self._client.call("refresh", {"path": path})


def _sum(family: Mapping[str, Any]) -> float:
    return float(sum(sample["value"] for sample in family["samples"]))
