"""Every fault x every request x every data path: nothing wrong, nothing lost, nothing that hangs.

The suite runs a slice of it; ``make faults`` runs every cell. ``OSSFS_PY_FAULTS=all`` says so here
(or words that a cell's name has, such as ``"once in Rename,etag"``), and ``OSSFS_PY_FAULTS_SEED``
gives order, places and repetitions.
"""

import os
import random
from collections import Counter

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.faults.matrix import Runner, cells, some
from tests.support.places import Place
from tests.support.proxy import Proxy

WANTED = os.environ.get("OSSFS_PY_FAULTS", "")
SEED = int(os.environ.get("OSSFS_PY_FAULTS_SEED", "1"))
ONCE_CELLS, ALWAYS_CELLS = 11, 1
"""The slice of the suite, on each data path."""

STALL_SECONDS = float(os.environ.get("OSSFS_PY_FAULTS_STALL", "3"))
"""Short, as every stall that is made costs it. The store itself may be slower than that on a busy
machine, so that ..."""
ONCE_BUDGET = "1h"
"""... what ends is repeated until it does, and ..."""
ALWAYS_BUDGET_SECONDS = max(5.0, 2 * STALL_SECONDS)
"""... only what never ends uses its budget up."""
LIMIT_SECONDS = 300 * max(1.0, STALL_SECONDS)
"""Longer is for ever: a piece of work sends several requests, each of which may use up the budget,
and took less than 20 s on a machine with nothing else to do."""


@pytest.mark.timeout(14400 if WANTED else 1200)
def test_every_fault_is_survived_or_told_and_nothing_is_lost(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio, data_path: str
) -> None:
    def runner(kind: str, retry_budget: str) -> Runner:
        mounted = mount(
            bucket,
            endpoint=proxy.endpoint,
            data_path=data_path,
            stall_timeout=f"{STALL_SECONDS}s",
            retry_budget=retry_budget,
            # Each piece of work sees what was put there a moment ago.
            metadata_ttl="0s",
        )

        def place(name: str, rng: random.Random) -> Place:
            return Place(mounted.path, minio_client, bucket, f"{kind}-{name}", rng)

        return Runner(place, proxy)

    once = runner("once", ONCE_BUDGET)
    always = runner("always", f"{ALWAYS_BUDGET_SECONDS}s")
    everything = cells(SEED + len(data_path))
    if WANTED:
        words = WANTED.split(",")
        chosen = [c for c in everything if words == ["all"] or any(w in str(c) for w in words)]
    else:
        chosen = some(everything, ONCE_CELLS, always=False)
        chosen += some(everything, ALWAYS_CELLS, always=True)
    problems: list[str] = []
    outcomes = []
    for cell in chosen:
        try:
            outcomes.append((always if cell.always else once).run(cell, LIMIT_SECONDS))
        except AssertionError as exc:
            problems.append(str(exc))
    assert not problems, "\n".join([f"{len(problems)} of {len(chosen)} cells", *problems])
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    told = Counter(outcome.errno for outcome in outcomes)
    print(  # noqa: T201 - shown by make faults
        f"{data_path}: {len(outcomes)} cells, {sum(one.hits for one in outcomes)} faults, "
        f"errnos {dict(told)}, slowest {slowest.seconds:.1f} s ({slowest.cell})"
    )
