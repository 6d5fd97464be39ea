"""The page of servers in the documentation, made from the results of the runs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.servers.deviations import NOT_KEPT, RANGES_COST_THE_OBJECT

PAGE = Path(__file__).parents[3] / "ossfs_py" / "SERVERS.md"
ORDER = ("seaweedfs", "ceph", "swift", "juicefs", "localstack", "moto", "rclone")
INTRODUCTION = """\
# Servers that were tried

Made by `make servers` from what the tests found; do not edit. It starts each server on loopback,
asks it what `ossfs-py doctor` asks, and runs the contract suite of the store and files of the mount
suite on it. A test of theirs that is not among the deviations below has passed; where none were run
with this version, the table says so. A row is one run of the code of its day, unless a note says
otherwise.

Your own store is tried in the same way: set `OSSFS_PY_TEST_ENDPOINT`, `OSSFS_PY_TEST_ACCESS_KEY`,
`OSSFS_PY_TEST_SECRET_KEY` (and `OSSFS_PY_TEST_BUCKET`, an empty bucket, if the key may not make
any) and run `pytest tests/contract/test_store.py tests/mount`.
"""
Outcome = Mapping[str, Any]


def write(results: Mapping[str, Outcome]) -> None:
    """Write it anew."""
    PAGE.write_text(page_of(results))


def page_of(results: Mapping[str, Outcome]) -> str:
    """The page in Markdown."""
    asked = {name: results[name] for name in ORDER if "features" in results.get(name, {})}
    tried = {name: one for name, one in asked.items() if "passed" in one}
    return "\n".join(
        [
            INTRODUCTION,
            "## What each one does",
            "",
            *_features(asked),
            "",
            "## What the tests found",
            "",
            *_outcomes(asked),
            "",
            *_files(tried),
            *_notes(tried),
            "",
            "## Deviations",
            "",
            "What a server does not do, or does otherwise than S3, with the number of tests that",
            "cannot pass because of it.",
            *_deviations(asked),
            "",
        ]
    )


def _features(asked: Mapping[str, Outcome]) -> Iterator[str]:
    yield _row("", *(str(one["version"]) for one in asked.values()))
    yield _row("---", *("---" for _ in asked))
    by_server = [{one["name"]: one for one in found["features"]} for found in asked.values()]
    meanings = {one["name"]: one["what"] for found in by_server for one in found.values()}
    for name, what in meanings.items():
        yield _row(what, *(_verdict(found.get(name)) for found in by_server))


def _verdict(feature: Mapping[str, str] | None) -> str:
    if feature is None:
        return ""
    instead = feature["instead"]
    return f"{feature['verdict']}: {instead}" if instead else feature["verdict"]


def _outcomes(asked: Mapping[str, Outcome]) -> Iterator[str]:
    yield _row("server", "passed", "deviations", "failed", "tried on")
    yield _row("---", "---:", "---:", "---:", "---")
    for one in asked.values():
        if "passed" not in one:
            yield _row(str(one["version"]), "not run", "", "", str(one["date"]))
            continue
        counts = (str(one["passed"]), str(len(one["expected"])), str(len(one["failed"])))
        yield _row(str(one["version"]), *counts, str(one["date"]))


def _files(tried: Mapping[str, Outcome]) -> Iterator[str]:
    """Which files were run, those of several servers once."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for one in tried.values():
        runs.setdefault(tuple(one["files"]), []).append(str(one["version"]))
    for files, servers in runs.items():
        yield f"- {', '.join(servers)}: {', '.join(f'`{file}`' for file in files)}"


def _notes(tried: Mapping[str, Outcome]) -> Iterator[str]:
    """What is to be known of how a row came about; those that have none are one run of today's
    code.
    """
    for one in tried.values():
        if "note" in one:
            yield f"- {one['version']}: {one['note']}"


def _deviations(asked: Mapping[str, Outcome]) -> Iterator[str]:
    for name, one in asked.items():
        reasons = Counter(
            str(why).removeprefix(f"{name}: ") for why in one.get("expected", {}).values()
        )
        lost = NOT_KEPT.get(name, {})
        lines = [f"- cannot hold `{what}`: {why}" for what, why in lost.items()]
        if costly := RANGES_COST_THE_OBJECT.get(name):
            lines.append(f"- {costly}: the largest file that tests read has 64 MiB")
        lines += [f"- {why} ({count})" for why, count in sorted(reasons.items())]
        if lines:
            yield from ("", f"**{one['version']}**", "", *lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
