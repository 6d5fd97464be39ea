"""``run``: the suites on one server after the other; ``page``: the table of what came of it."""

import argparse
import contextlib
import datetime as dt
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from ossfs_py.store import StoreOptions, open_store
from ossfs_py.telemetry.metrics import Metrics
from tests.support.chosen import PREFIX
from tests.support.commands import plain_environment
from tests.support.servers import page
from tests.support.servers.launching import Running, ServerMissingError

SERVERS = ("ceph", "swift", "juicefs", "localstack", "rclone", "moto", "seaweedfs")
CONTRACT = ("tests/contract/test_store.py",)
MOUNT = (
    "tests/mount/test_semantics.py",
    "tests/mount/test_writing.py",
    "tests/mount/test_reading.py",
    "tests/mount/test_names.py",
    "tests/mount/test_attributes.py",
    "tests/mount/test_descriptions.py",
    "tests/mount/test_other_writers.py",
    "tests/mount/test_programs.py",
    "tests/mount/test_recover.py",
    "tests/mount/test_write_back.py",
)
"""Files of the mount suite in which the store has a say; the others are about this machine."""
HANDED_ON = ("OSSFS_PY_HISTORIES", "OSSFS_PY_SOAK_SEED")
"""How much is tried: variables that the tests get from who runs this."""
RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 if a test failed or a server did not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.servers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the suites on these servers")
    run.add_argument("servers", nargs="*", metavar="SERVER", help=", ".join(SERVERS))
    run.add_argument("--scratch", type=Path, help="where the servers' data goes for a while")
    run.add_argument("--results", type=Path, default=RESULTS)
    run.add_argument(
        "--tests",
        nargs="*",
        default=[*CONTRACT, *MOUNT],
        metavar="PATH",
        help="instead of all; none: only ask each server what doctor asks",
    )
    run.add_argument("--pytest", default="", help="more arguments for pytest, in one word")
    run.add_argument("--keep-results", action="store_true", help="do not write the results")
    commands.add_parser("page", help="write the page of servers anew from the results")
    options = parser.parse_args(arguments)
    if options.command == "page":
        page.write(json.loads(RESULTS.read_text()))
        return 0
    if unknown := set(options.servers) - set(SERVERS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    # So that servers end with us: those that change their user lose what the kernel would do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = []
    for name in options.servers or SERVERS:
        with tempfile.TemporaryDirectory(prefix=f"ossfs-py-{name}-", dir=options.scratch) as home:
            outcome = run_on(name, Path(home), options.tests, options.pytest.split())
        print(f"{name}: {told(outcome)}", flush=True)  # noqa: T201 - for who waits for it
        if outcome.get("failed") or "problem" in outcome:
            failed.append(name)
        if not options.keep_results:
            keep(options.results, name, outcome)
    if failed:
        print(f"not as they should: {', '.join(failed)}")  # noqa: T201 - the same
    return 1 if failed else 0


def run_on(name: str, home: Path, tests: Sequence[str], more: Sequence[str]) -> dict[str, object]:
    """Start a server, run the tests on it, end it."""
    home.chmod(0o711)  # others pass: some tests are another user's
    (data := home / "server").mkdir()
    began = time.monotonic()
    try:
        with started(name, data) as server:
            ready = time.monotonic()
            outcome = {
                "version": server.version,
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
                "files": [test.removeprefix("tests/") for test in tests],
                "features": features(server, home),
                **(suites(name, server, home, tests, more) if tests else {}),
            }
    except ServerMissingError as exc:
        return {"problem": str(exc)}
    return {
        **outcome,
        "start_seconds": round(ready - began),
        "test_seconds": round(time.monotonic() - ready),
    }


@contextlib.contextmanager
def started(name: str, home: Path) -> Iterator[Running]:
    """One of :data:`SERVERS`."""
    with importlib.import_module(f"tests.support.servers.{name}").run(home) as server:
        yield server


def features(server: Running, home: Path) -> list[dict[str, str]]:
    """What ``ossfs-py doctor`` says of it."""
    keys = home / "keys"
    keys.touch(0o600)
    # Keys of Swift have a colon, which no password file can have.
    keys.write_text(
        f"[default]\naws_access_key_id = {server.access_key}\n"
        f"aws_secret_access_key = {server.secret_key}\n"
    )
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(keys)
    import boto3

    boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    ).create_bucket(Bucket="features")
    store = open_store(
        StoreOptions(bucket="features", endpoint=server.endpoint, retry_budget_seconds=10.0),
        Metrics(),
    )
    try:
        found = store.capabilities(thorough=True).features
    finally:
        store.close()
        del os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    return [
        {"name": one.name, "what": one.what, "verdict": one.verdict, "instead": one.instead}
        for one in found
    ]


def suites(
    name: str, server: Running, home: Path, tests: Sequence[str], more: Sequence[str]
) -> dict[str, object]:
    """Run pytest; what passed, what failed, what was expected to."""
    report, base = home / "report.xml", home / "pytest"
    (scratch := home / "tmp").mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # What measures the time that something takes says nothing of the store, and is run alone.
    command += ["-m", "not alone"]
    command += [f"--junitxml={report}", f"--basetemp={base}", "-o", "junit_logging=no"]
    chosen = {
        "ENDPOINT": server.endpoint,
        "ACCESS_KEY": server.access_key,
        "SECRET_KEY": server.secret_key,
        "REGION": server.region,
        "SERVER": name,
    }
    subprocess.run(
        [*command, *tests, *more],
        check=False,
        env={
            **plain_environment({"TMPDIR": str(scratch)}),
            **{name: os.environ[name] for name in HANDED_ON if name in os.environ},
            **{f"{PREFIX}{key}": value for key, value in chosen.items()},
        },
    )
    if not report.exists():
        return {"problem": "pytest ended without a report"}
    passed, failed, expected = 0, [], {}
    for case in ET.parse(report).getroot().iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        skipped, broken = case.find("skipped"), case.find("failure")
        if broken is None:
            broken = case.find("error")
        if broken is not None:
            failed.append(test)
        elif skipped is not None:
            expected[test] = str(skipped.get("message")).removeprefix("[NOTRUN] ")
        else:
            passed += 1
    return {"passed": passed, "failed": sorted(set(failed)), "expected": expected}


def told(outcome: dict[str, object]) -> str:
    """One line."""
    if "problem" in outcome:
        return str(outcome["problem"])
    if "passed" not in outcome:
        return f"{outcome['version']}: asked; started in {outcome['start_seconds']} s"
    failed, expected = outcome["failed"], outcome["expected"]
    return (
        f"{outcome['version']}: {outcome['passed']} passed, {len(failed)} failed, "  # type: ignore[arg-type]
        f"{len(expected)} deviations; started in {outcome['start_seconds']} s, "  # type: ignore[arg-type]
        f"tested in {outcome['test_seconds']} s"
    )


def keep(path: Path, name: str, outcome: dict[str, object]) -> None:
    """Put the outcome beside those of other servers."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = outcome
    path.write_text(json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
