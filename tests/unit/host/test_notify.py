"""What a service manager hears, message by message."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.config import Settings
from ossfs_py.daemon.servicestate import ServiceState
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.host.notify import Notifier
from ossfs_py.telemetry.metrics import Metrics
from tests.support.service_manager import ServiceManager


class Uploads:
    """What of a file system the status line asks."""

    pending_uploads = 3


FILESYSTEM: Filesystem = Uploads()  # type: ignore[assignment]


@contextlib.contextmanager
def state(manager: ServiceManager, metrics: Metrics) -> Iterator[ServiceState]:
    settings = Settings.model_validate(
        {
            "bucket": "models",
            "mountpoint": "/mnt/models",
            "retry_budget_seconds": 60,
            "stall_timeout_seconds": 10,
        }
    )
    notifier = Notifier.from_environment(manager.environment)
    yield ServiceState(settings, notifier, metrics)
    notifier.close()


def test_without_a_service_manager_nothing_is_said() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.listening
    notifier.ready("x")
    notifier.close()


@pytest.mark.parametrize("address", ["relative/path", "vsock:2:1", ""])
def test_addresses_of_another_kind_are_left_alone(address: str) -> None:
    assert not Notifier.from_environment({"NOTIFY_SOCKET": address}).listening


def test_a_service_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.status("x")
    notifier.close()


def test_a_service_manager_that_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        notifier = Notifier.from_environment(manager.environment)
        for _ in range(10_000):
            notifier.status("x" * 100)
        notifier.close()


def test_a_status_is_one_line(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        notifier = Notifier.from_environment(manager.environment)
        notifier.status("two\nREADY=1")
        assert manager.next() == {"STATUS": "two READY=1"}
        notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_if_it_watches_this_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/nobody", **environ})
    assert notifier.watchdog_seconds == seconds
    notifier.close()


def test_readiness_comes_with_a_line_about_the_mount(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.bytes_received.inc(2_000_000_000)
    with ServiceManager(tmp_path) as manager, state(manager, metrics) as service:
        service.serving(FILESYSTEM)
        assert manager.next() == {
            "READY": "1",
            "STATUS": "Serving models at /mnt/models (temp): 2.0 GB received, 0.0 GB sent,"
            " 3 files to be uploaded",
        }


def test_a_reload_is_announced_and_ended(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager, state(manager, Metrics()) as service:
        service.serving(FILESYSTEM)
        manager.next()
        with service.reloading():
            assert manager.next()["RELOADING"] == "1"
        assert manager.next()["READY"] == "1"


def test_a_reload_before_the_mount_answers_does_not_claim_readiness(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager, state(manager, Metrics()) as service:
        with service.reloading():
            pass
        service.draining()
        assert "READY" not in manager.next()


def hurried() -> trio.testing.MockClock:
    """A clock that jumps to the next moment at which something happens."""
    return trio.testing.MockClock(autojump_threshold=0)


def test_more_time_is_asked_for_while_uploads_get_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        service.serving(FILESYSTEM)
        service.draining()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.keep_told)
            await trio.sleep(60)
            manager.forget()
            metrics.bytes_sent.inc(10)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()

    metrics = Metrics()
    with ServiceManager(tmp_path) as manager, state(manager, metrics) as service:
        trio.run(scenario, clock=hurried())
        told = []
        while "EXTEND_TIMEOUT_USEC" not in (message := manager.next()):
            told.append(message)
        assert message == {"EXTEND_TIMEOUT_USEC": "100000000"}
        manager.forget()


def test_the_watchdog_hears_of_a_loop_that_turns(tmp_path: Path) -> None:
    async def scenario() -> None:
        with trio.move_on_after(10):
            await service.keep_told()

    with (
        ServiceManager(tmp_path, watchdog_seconds=6) as manager,
        state(manager, Metrics()) as service,
    ):
        trio.run(scenario, clock=hurried())
        for _ in range(5):
            assert manager.next() == {"WATCHDOG": "1"}
