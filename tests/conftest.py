"""Fixtures every test may ask for: a real S3 server, fresh buckets, an independent client."""

import itertools
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import hypothesis
import pytest
import urllib3
from minio import Minio

from tests.support.chosen import ChosenStore, chosen_server
from tests.support.mounting import DATA_PATHS, Mount, Option
from tests.support.proxy import Proxy
from tests.support.requirements import require_torch
from tests.support.seaweed import OUTSIDER, OUTSIDER_BUCKET, REGION, Account, SeaweedServer
from tests.support.servers import deviations

REFUSES_SKIPS = os.environ.get("REFUSE_SKIPS", "") not in ("", "0")
"""Whether a test that is skipped has failed: where everything that tests need is to be had."""
_numbers = itertools.count(1)
_left_buckets: list[str] = []
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# A shell starts what runs in the background with SIGINT ignored, and every program a test starts
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip is a failure where skips are refused; a failure tells that the store had crashed."""
    report = refused_if_skipped((yield))
    server = getattr(item, "funcargs", {}).get("seaweed")
    if report.failed and isinstance(server, SeaweedServer) and (crash := server.crash):
        report.sections.append(("Crash of the S3 server", crash))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules."""
    return refused_if_skipped((yield))


def refused_if_skipped(report: Report) -> Report:
    if REFUSES_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"{reason} (skips are refused here)"
    return report


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The few tests that measure time are found without loading all the others."""
    if config.option.markexpr != "alone" or not collection_path.is_file():
        return None
    return True if b"pytest.mark.alone" not in collection_path.read_bytes() else None


_LONGEST_FIRST = ("soak", "model", "mount", "faults", "security", "service", "contract")
"""Directories of tests by how long one of their files takes: several processes share the files, and
a long one that begins last is waited for by all."""


def _rank(item: pytest.Item) -> int:
    # Tests of the tests' own set-up make some elsewhere.
    here = Path(__file__).parent
    directory = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
    return _LONGEST_FIRST.index(directory) if directory in _LONGEST_FIRST else len(_LONGEST_FIRST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin first; what a server is known not to do is expected to fail, and must."""
    items.sort(key=_rank)
    for item in items:
        # The contract has its servers as a parameter; everything else runs on the chosen one.
        parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        server = (parameters or {}).get("server", chosen_server())
        for known in deviations.of_test(item.nodeid, server):
            item.add_marker(
                pytest.mark.xfail(
                    reason=f"{server}: {known.reason}",
                    run=known.kind != "not run",
                    strict=known.kind == "fails",
                )
            )


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """The library, which is as large as everything else several times over."""
    return require_torch()


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer | ChosenStore]:
    """One real S3 server for the whole run; ``identities["outsider"]`` may use its own bucket.

    It is another one than SeaweedFS, without outsiders, where the environment has chosen it.
    """
    if chosen := ChosenStore.of(os.environ):
        with pytest.MonkeyPatch.context() as patch:
            # No password file takes keys with a colon, as Swift has them.
            for name, value in chosen.environment.items():
                patch.setenv(name, value)
            yield chosen
        chosen.close()
        return
    outsider = Account(
        OUTSIDER, tuple(f"{action}:{OUTSIDER_BUCKET}" for action in ("Read", "Write", "List"))
    )
    with SeaweedServer([outsider]) as server:
        server.make_bucket(OUTSIDER_BUCKET)
        yield server


@pytest.fixture(scope="session")
def minio_client(seaweed: SeaweedServer | ChosenStore) -> Iterator[Minio]:
    """An S3 client that shares no code with the package: the witness of what is stored."""
    if isinstance(seaweed, ChosenStore):
        yield seaweed.client
        return
    pool = urllib3.PoolManager(maxsize=8, timeout=60)
    yield Minio(
        seaweed.host,
        seaweed.access_key,
        seaweed.secret_key,
        secure=False,
        region=REGION,
        http_client=pool,
    )
    pool.clear()


@pytest.fixture
def bucket(seaweed: SeaweedServer, minio_client: Minio) -> Iterator[str]:
    """Name of an empty bucket that belongs to this test alone.

    It goes, with the disk space that its objects took, when the next test asks for one: a mount
    of this test may end later than this fixture.
    """
    _remove_left_buckets(seaweed, minio_client)
    name = make_bucket(seaweed)
    yield name
    _left_buckets.append(name)


@pytest.fixture(scope="module")
def module_bucket(seaweed: SeaweedServer, minio_client: Minio) -> Iterator[str]:
    """Name of a bucket shared by the tests of one module; it goes as ``bucket`` does."""
    _remove_left_buckets(seaweed, minio_client)
    name = make_bucket(seaweed)
    yield name
    _left_buckets.append(name)


def _remove_left_buckets(server: SeaweedServer | ChosenStore, client: Minio) -> None:
    while _left_buckets:
        name = _left_buckets.pop()
        if isinstance(server, ChosenStore):
            server.remove_bucket(name)
        else:
            client.remove_bucket(name)  # the embedded server takes full ones too


def make_bucket(server: SeaweedServer | ChosenStore) -> str:
    """A new empty bucket's name."""
    if isinstance(server, ChosenStore):
        return server.fresh_bucket()
    name = f"bucket-{next(_numbers)}"
    server.make_bucket(name)
    return name


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[Proxy]:
    """A counting and fault-injecting proxy in front of the server."""
    with Proxy(seaweed.host) as running:
        yield running


@pytest.fixture(params=DATA_PATHS)
def data_path(request: pytest.FixtureRequest) -> str:
    """Each data path in turn."""
    return str(request.param)


MountFactory = Callable[..., Mount]


@pytest.fixture
def mount(
    request: pytest.FixtureRequest, seaweed: SeaweedServer, tmp_path: Path
) -> Iterator[MountFactory]:
    """``mount(source, data_path="direct", …)`` mounts; everything ends with the test.

    ``executed=True`` where the test is about what a start brings with it (``Mount`` says more).

    A mount that is still there at the end must end well: unmounted, exit code 0, and no
    traceback nor leak in its log.
    """
    if "proxy" in request.fixturenames:
        # It ends after the mounts, which may still wait for the answer to their last request.
        request.getfixturevalue("proxy")
    mounts: list[Mount] = []

    def start(source: str, **options: Option) -> Mount:
        options.setdefault("endpoint", seaweed.endpoint)
        work = tmp_path / f"mount-{len(mounts)}"
        one = Mount(source, work, environment=seaweed.environment, **options)  # type: ignore[arg-type]
        mounts.append(one)
        return one.start()

    yield start
    problems = []
    for one in reversed(mounts):
        try:
            if one.running and (code := one.unmount()):
                problems.append(f"exit code {code}\n{one.log}")
        finally:
            one.close()
        if "Traceback" in one.log or "were not given back" in one.log:
            problems.append(one.log)
    assert not problems, "\n".join(problems)
