"""What a running mount can be asked through its control socket: the table of commands.

A command is a function of its arguments and a way to send progress; what it needs of the mount is
bound here.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from prometheus_client.metrics_core import Metric

from ossfs_py.config import Settings
from ossfs_py.control import Arguments, Command, Progress
from ossfs_py.metrics import Metrics


def control_commands(settings: Settings, metrics: Metrics) -> dict[str, Command]:
    """Every command by its name."""
    return {
        "stats": partial(_stats, settings, metrics),
    }


async def _stats(
    settings: Settings, metrics: Metrics, _arguments: Arguments, _progress: Progress
) -> Mapping[str, Any]:
    return {
        "source": settings.source,
        "data_path": settings.data_path,
        "metrics": {family.name: _samples(family) for family in metrics.registry.collect()},
    }


def _samples(family: Metric) -> dict[str, Any]:
    return {
        "type": family.type,
        "help": family.documentation,
        "samples": [
            {
                "name": sample.name,
                "labels": sample.labels,
                # Infinite bucket bounds are labels; infinite values do not occur.
                "value": sample.value,
            }
            for sample in family.samples
            if not sample.name.endswith("_created")
        ],
    }
