"""What "make bench-nodes NODES=--check" calls a broken promise."""

from dataclasses import replace

from tests.bench.nodes import (
    AGAIN,
    ALONE,
    COLD,
    FAILING,
    Run,
    broken_promises,
    broken_promises_of_one_host,
)

GIB = 1024**3


def run(nodes: int, what: str, seconds: float, sent: float) -> Run:
    """One start, of a model of 1 GiB."""
    return Run(
        *(nodes, what, seconds, seconds, int(sent * GIB)),
        most_received_by_a_node=0,
        most_sent_by_a_node=0,
        daemon_cpu_seconds=0.0,
        cache_cpu_seconds=0.0,
        load=0.0,
        blocks={},
    )


def test_runs_within_their_limits_break_nothing() -> None:
    runs = [
        *(run(1, COLD, 20.0, 1.0), run(8, COLD, 25.9, 1.05), run(8, AGAIN, 60.0, 0.0)),
        run(8, FAILING, 32.0, 1.125),
    ]
    assert broken_promises(runs, GIB) == []


def test_each_limit_that_is_exceeded_is_said() -> None:
    runs = [
        *(run(1, COLD, 20.0, 1.0), run(8, COLD, 26.5, 1.06), run(8, AGAIN, 5.0, 0.01)),
        run(8, FAILING, 40.0, 1.2),
    ]
    assert broken_promises(runs, GIB) == [
        "8 nodes, shared, cold: times the model that the store sent 1.06, not 1.05",
        "8 nodes, shared, cold: times the time of one node 1.32, not 1.30",
        "8 nodes, shared, again: times the model that the store sent 0.01, not 0.00",
        "8 nodes, shared, cold, failing: times the model that the store sent 1.20, not 1.12",
        "8 nodes, shared, cold, failing: times the time without failures 1.51, not 1.25",
    ]


def test_without_one_node_alone_only_bytes_are_judged() -> None:
    assert broken_promises([run(8, COLD, 1000.0, 1.0)], GIB) == []


def test_mounts_of_one_host_are_judged_by_the_median_of_their_cpu_seconds() -> None:
    def burnt(what: str, seconds: float) -> Run:
        return replace(run(4, what, 10.0, 0.0), daemon_cpu_seconds=seconds)

    kept = [burnt(ALONE, 10.0), burnt(AGAIN, 8.0), burnt(AGAIN, 8.0), burnt(AGAIN, 12.0)]
    assert broken_promises_of_one_host(kept) == []
    broken = [burnt(ALONE, 10.0), burnt(AGAIN, 8.5)]
    assert broken_promises_of_one_host(broken) == ["4 mounts: 0.85 of the CPU seconds, not 0.80"]
    assert broken_promises_of_one_host([burnt(ALONE, 10.0)]) == []
