"""A mount that only counts, for what commands make of its metrics."""

from typing import Any

from ossfs_py.cli.mount_metrics import MountMetrics
from ossfs_py.telemetry.metrics import Metrics


class CountingMount:
    """Its metrics are set by the test."""

    def __init__(self, data_path: str = "direct") -> None:
        self.metrics = Metrics()
        self.data_path = data_path
        self.waiting: list[dict[str, Any]] = []

    def look(self) -> MountMetrics:
        """The metrics as ``ossfs-py stats`` gets them."""
        families = {
            family.name: {
                "samples": [
                    {"name": sample.name, "labels": sample.labels, "value": sample.value}
                    for sample in family.samples
                ]
            }
            for family in self.metrics.registry.collect()
        }
        return MountMetrics(
            {
                "source": "models",
                "data_path": self.data_path,
                "metrics": families,
                "waiting": self.waiting,
            }
        )
