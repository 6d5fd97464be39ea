"""The life of one mount: checks, assembly, readiness, signals, drain.

    checks -> store answers -> mounted -> ready -> [SIGHUP: reread] -> drain -> unmounted -> exit

The first SIGTERM or SIGINT, and an unmount from outside, lead to the drain: everything dirty is
brought to the store. A second signal cuts it short: what is dirty stays on disk.
"""

import faulthandler
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import trio

from ossfs_py.config import BadOptionsError, Settings
from ossfs_py.control.server import Command, controlled
from ossfs_py.control.service_commands import service_commands
from ossfs_py.daemon import surroundings
from ossfs_py.daemon.assembly import assembled
from ossfs_py.daemon.options import (
    fuse_options,
    local_directories,
    state_directory,
    store_options,
)
from ossfs_py.daemon.servicestate import ServiceState
from ossfs_py.daemon.succeeding import taken_from
from ossfs_py.daemon.surroundings import Surroundings, check_kept
from ossfs_py.daemon.upgrading import Upgrade
from ossfs_py.errors import EnvironmentProblemError, OssfsError, UnsavedDataError, UserError
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.survival import (
    FoundOut,
    MountIdentity,
    SurvivalError,
    found_out_before,
    open_survival,
)
from ossfs_py.fuse.session import ServingFailedError, UnmountedEarlyError, mounted
from ossfs_py.fuse.succession import Heir
from ossfs_py.host.directories import prepare_directories
from ossfs_py.host.handover import Predecessor
from ossfs_py.host.keeping import MountKeeper
from ossfs_py.host.kernelside import check_given, given_descriptor, mountpoint_of
from ossfs_py.host.mountpoint import check_machine, real_path, unmount
from ossfs_py.host.notify import Notifier
from ossfs_py.host.preparing import prepare_mountpoint
from ossfs_py.host.running import (
    BUSY_SECONDS,
    LEFT_SECONDS,
    SOCKET_NAME,
    GivenUp,
    RunningMount,
    note_given_up,
    registered,
)
from ossfs_py.host.standing import look_at
from ossfs_py.namespace.past import check_history
from ossfs_py.runtime.descriptors import raise_limit
from ossfs_py.runtime.interpreter import collect_rarely, share_fairly
from ossfs_py.store import open_store
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.exposition import exposed
from ossfs_py.telemetry.logs import Logs
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.telemetry.stacks import describe_tasks
from ossfs_py.telemetry.status import MountStatus
from ossfs_py.writing.leftovers import (
    count_unsaved,
    forget_if_empty,
    remember,
    sentence_about_unsaved,
)

log = logging.getLogger(__name__)

_CHECK_SECONDS = 8.0
_CHECK_GRACE_SECONDS = 1.0
"""A wrong endpoint or key is told within 10 s of the command's start; imports take their part."""

_SET_ASIDE_SECONDS = 5.0
"""After a second signal: writing parts that are in memory only to a slow disk takes this long."""

_BEAT_SECONDS = 1.0

_DONE, _FAILED = 0, 1
_TERMINATED = 128 + signal.SIGTERM
"""As a shell reports the signal: nothing is mounted, and nothing went wrong."""


def run(
    settings: Settings,
    ready: Callable[[Sequence[str]], None],
    logs: Logs,
    reread: Callable[[], Settings],
    notifier: Notifier,
    keeper: MountKeeper | None = None,
    predecessor: Predecessor | None = None,
) -> int:
    """Mount, call ``ready`` once the kernel has it, serve until the end, return the exit code.

    ``ready`` is given what a person should know of the mount.
    ``reread`` reads every source of settings again; of the result only the log level is used.
    ``notifier`` tells the service manager, where there is one. With ``keeper`` the mount may be
    there already, from a daemon that died, or from ``predecessor``, which serves it until this one
    can.

    Raises:
        UserError: why it cannot be mounted; nothing is left behind.
    """
    raise_limit()
    share_fairly()
    collect_rarely()
    given = given_descriptor(settings.mountpoint)
    if given is None:
        check_machine(settings.allow_other)
    else:
        check_given(given, is_new=keeper is None or keeper.device is None)
        os.set_inheritable(given, False)
    check_kept(settings, Surroundings())
    is_left = keeper is not None and keeper.device is not None
    prepare_directories(local_directories(settings), may_be_full=is_left)
    metrics = Metrics()
    store = None
    if keeper is not None and predecessor is not None:
        store = taken_from(predecessor, settings, keeper, metrics)
    upgrade = Upgrade(settings, keeper, logs.close)
    found_out = _found_out(settings, keeper)
    mountpoint = Path(found_out.mountpoint)
    settings = settings.model_copy(update={"at_ns": found_out.at_ns})
    state = "" if settings.read_only else str(state_directory(settings, mountpoint))
    record = RunningMount(
        os.getpid(),
        str(mountpoint),
        settings.source,
        settings.data_path,
        state,
        endpoint=settings.endpoint or "",
    )
    is_mounted = given is not None or is_left
    # A daemon that was just killed holds its lock until the kernel has freed its memory. Its mount
    # does not answer before that: once it is known to be dead, the lock is let go of.
    if not is_mounted:
        look_at(mountpoint)
    with registered(record, busy_seconds=LEFT_SECONDS if is_left else BUSY_SECONDS) as runtime_dir:
        # The table is read when nobody else can write to it any more.
        heir = None if keeper is None else _heir(settings, keeper, found_out)
        if not is_mounted:
            prepare_mountpoint(mountpoint, nonempty=settings.nonempty)
        for warning in surroundings.warnings(settings, mountpoint, Surroundings()):
            log.warning("%s", warning)
        life = _Life(
            *(settings, mountpoint, runtime_dir, ready, logs, reread, notifier),
            *(metrics, heir, upgrade),
        )
        try:
            return trio.run(life.run, store)
        except BaseExceptionGroup as group:
            for exc in _leaves(group):
                if isinstance(exc, SurvivalError) and heir is not None:
                    heir.refused()
                if isinstance(exc, UserError):
                    raise exc from None
            raise


def _place(settings: Settings) -> Path:
    """The mountpoint as the kernel knows it."""
    given = given_descriptor(settings.mountpoint)
    return real_path(settings.mountpoint) if given is None else mountpoint_of(given)


def _found_out(settings: Settings, keeper: MountKeeper | None) -> FoundOut:
    """The facts that the first daemon of the mount found out, or finds out now.

    Raises:
        SurvivalError: the new daemon cannot continue with them.
    """
    before = None
    if keeper is not None:
        try:
            before = found_out_before(keeper.ledger)
        except SurvivalError:
            keeper.refused()
            raise
    return before or FoundOut(str(_place(settings)), settings.at_ns)


def _heir(settings: Settings, keeper: MountKeeper, found_out: FoundOut) -> Heir:
    """State of the previous daemon, if there was one.

    Raises:
        SurvivalError: the new daemon cannot continue with it.
    """
    facts = MountIdentity(
        settings.source,
        str(settings.mountpoint),
        settings.endpoint or "",
        "" if settings.read_only else str(settings.state_dir),
    )
    try:
        survival = open_survival(keeper.ledger)
        survival.serve(facts, found_out)
    except SurvivalError:
        keeper.refused()
        raise
    return Heir(survival, keeper)


def end_what_was_given_up(settings: Settings, why: str, notifier: Notifier) -> int:
    """Unmount what no daemon goes on with, and say why; the exit code."""
    mountpoint = _place(settings)
    told = f"the mount at {mountpoint} is given up: {why}"
    log.critical("%s", told)
    notifier.status(told)
    try:
        note_given_up(GivenUp(str(mountpoint), settings.source, why))
    except (OSError, EnvironmentProblemError) as exc:
        log.warning("'ossfs-py list' will not show it: %s", exc)
    if given_descriptor(settings.mountpoint) is not None:
        return _FAILED
    try:
        # The rest of a dead daemon may have the kernel's descriptor for as long as it waits for the
        # next one (``host/remains.py``): programs are told of the end by force alone.
        unmount(mountpoint, lazy=True, force=True)
    except EnvironmentProblemError as exc:
        log.error("%s", exc)  # noqa: TRY400 (a sentence for people)
    return _FAILED


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc


class _Life:
    """One mount from its first request to the exit code. Belongs to the trio thread."""

    def __init__(
        self,
        settings: Settings,
        mountpoint: Path,
        runtime_dir: Path,
        ready: Callable[[Sequence[str]], None],
        logs: Logs,
        reread: Callable[[], Settings],
        notifier: Notifier,
        metrics: Metrics,
        heir: Heir | None,
        upgrade: Upgrade,
    ) -> None:
        self._heir = heir
        self._upgrade = upgrade
        self._settings = settings
        self._mountpoint = mountpoint
        self._runtime_dir = runtime_dir
        self._ready = ready
        self._logs = logs
        self._reread = reread
        self._metrics = metrics
        self._service = ServiceState(settings, notifier, self._metrics)
        self._store: ObjectStore | None = None
        self._mounting = trio.CancelScope()
        self._draining = trio.CancelScope()
        self._code = _DONE
        self._is_mounted = False
        self._is_prefix_unused = False
        self._stop = trio.Event()

    async def run(self, store: ObjectStore | None) -> int:
        """Live, from ``store`` if it is open already; the exit code."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._obey_signals)
            nursery.start_soon(self._service.keep_told)
            nursery.start_soon(self._beat)
            code = await (self._serve() if store is None else self._serve_from(store))
            nursery.cancel_scope.cancel()
        return code

    async def _beat(self) -> None:
        while self._heir is not None:
            self._heir.beat()
            await trio.sleep(_BEAT_SECONDS)

    async def _serve(self) -> int:
        with self._mounting:
            store = await self._open_store()
        if self._mounting.cancelled_caught:
            return self._ended_early()
        return await self._serve_from(store)

    def _ended_early(self) -> int:
        log.info("ended by a signal before anything was mounted")
        return _TERMINATED

    async def _serve_from(self, store: ObjectStore) -> int:
        try:
            return await self._serve_all(store)
        finally:
            store.close()

    async def _serve_all(self, store: ObjectStore) -> int:
        self._store = store
        async with (
            assembled(
                self._settings,
                self._mountpoint,
                store,
                self._metrics,
                self._runtime_dir,
                None if self._heir is None else self._heir.survival,
            ) as (filesystem, commands),
            controlled(self._runtime_dir / SOCKET_NAME, self._answered(commands)),
            exposed(
                self._settings.metrics_address,
                self._metrics.registry,
                MountStatus(self._metrics, names=self._settings.status_names),
            ),
        ):
            # Before the mount answers: from then on, reading alone writes to no disk.
            self._remember_store()
            if self._stop.is_set():
                return self._ended_early()
            try:
                async with mounted(
                    filesystem,
                    fuse_options(self._settings, self._mountpoint),
                    self._metrics,
                    self._logs.access,
                    self._heir,
                ):
                    self._is_mounted = True
                    log.info(
                        "%s is mounted at %s (%s data path)",
                        self._settings.source,
                        self._mountpoint,
                        self._settings.data_path,
                    )
                    if self._settings.special_modes:
                        log.warning(
                            "special-modes: anybody who can write to %s can store set-user-ID"
                            " programs; only nosuid prevents their effect",
                            self._settings.source,
                        )
                    self._service.serving(filesystem)
                    self._ready(self._warnings())
                    self._hand_over()
                    await self._stop.wait()
                    # Programs can go on working while their files are brought to the store.
                    await self._drain(filesystem)
            except UnmountedEarlyError:
                log.info("%s was unmounted before it was ready", self._mountpoint)
            except EnvironmentProblemError:
                self._forget_store()
                raise
            except ServingFailedError as exc:
                log.critical(
                    "%s is taken down: %s", self._mountpoint, exc, exc_info=exc.__cause__ or exc
                )
                self._code = _FAILED
            self._service.draining()
            # Also what was written meanwhile, and after somebody else unmounted.
            await self._drain(filesystem)
        self._forget_store()
        if given_descriptor(self._settings.mountpoint) is None:
            log.info("%s is unmounted", self._mountpoint)
        else:
            log.info(
                "%s is no longer served: the program that mounted it has to unmount it",
                self._mountpoint,
            )
        return self._code

    def _hand_over(self) -> None:
        if self._heir is None:
            return
        self._upgrade.is_kept = self._heir.hand_over()
        self._upgrade.filesystem = self._heir.filesystem
        if self._upgrade.is_kept:
            log.info("if this daemon dies, another one takes over")
        else:
            log.warning("the mount ends with this daemon: there is no fast lane here")

    def _answered(self, commands: Mapping[str, Command]) -> dict[str, Command]:
        service = service_commands(self._logs, read_only=self._settings.read_only)
        return {**commands, **service, "upgrade": self._upgrade.command}

    @property
    def _state_directory(self) -> Path:
        return state_directory(self._settings, self._mountpoint)

    def _warnings(self) -> list[str]:
        """An empty mount that may be a mistake, unsaved files of earlier mounts; also logs them."""
        found = []
        if self._is_prefix_unused:
            found.append(
                f"no key in the bucket begins with {self._settings.prefix!r}, so nothing is in the"
                " mount: is the prefix spelt right?"
            )
        if not self._settings.read_only:
            count = count_unsaved(self._state_directory, ended=False)
            if count:
                told = sentence_about_unsaved(self._state_directory, count)
                found.append(f"from an earlier mount: {told}")
        for sentence in found:
            log.warning("%s", sentence)
        return found

    def _remember_store(self) -> None:
        """Let ``ossfs-py recover`` know later where unsaved files belong."""
        settings = self._settings
        if settings.read_only:
            return
        try:
            remember(self._state_directory, self._mountpoint, store_options(settings))
        except OSError as exc:
            log.warning("the store of unsaved files cannot be recorded: %s", exc)

    def _forget_store(self) -> None:
        if not self._settings.read_only:
            forget_if_empty(self._state_directory)

    async def _open_store(self) -> ObjectStore:
        """The store, known to answer.

        Raises:
            EnvironmentProblemError: it does not, in one sentence.
        """
        if self._heir is not None and self._heir.device is not None:
            # Whatever the store says: programs wait, and go on as they would on a running mount.
            return await trio.to_thread.run_sync(
                open_store, store_options(self._settings), self._metrics
            )
        limit_seconds = _CHECK_SECONDS + _CHECK_GRACE_SECONDS
        with trio.move_on_after(limit_seconds):
            # A name server that does not answer holds its thread for longer than that; the
            # thread is left behind then.
            return await trio.to_thread.run_sync(self._checked_store, abandon_on_cancel=True)
        where = self._settings.endpoint or "AWS S3"
        raise EnvironmentProblemError(
            f"the store at {where} does not answer within {limit_seconds:g} seconds"
        )

    def _checked_store(self) -> ObjectStore:
        store = open_store(store_options(self._settings), self._metrics)
        try:
            is_empty = not store.check(self._settings.prefix, _CHECK_SECONDS)
            self._is_prefix_unused = is_empty and bool(self._settings.prefix)
            if self._settings.at_ns is not None:
                self._is_prefix_unused = False  # now, but there may have been keys then
                warning = check_history(store, self._settings.prefix, self._settings.at_ns)
                if warning is not None:
                    log.warning("%s", warning)
        except BaseException:
            store.close()
            raise
        return store

    async def _drain(self, filesystem: Filesystem) -> None:
        """Bring everything dirty to the store; what the store does not take is set aside."""
        with self._draining:
            try:
                await filesystem.drain()
            except UnsavedDataError as exc:
                log.error("%s", exc)  # noqa: TRY400 (each file has been logged with its cause)
                self._code = _FAILED
        if self._draining.cancelled_caught:
            log.error("some files could not be set aside in time; the next mount looks for them")
            self._code = _FAILED
        self._draining = trio.CancelScope(deadline=self._draining.deadline)

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        with trio.open_signal_receiver(*watched) as numbers:
            # The threads' stacks go to stderr even when the loop itself is stuck.
            faulthandler.register(signal.SIGUSR1, chain=True)
            task_status.started()
            async for number in numbers:
                if number == signal.SIGHUP:
                    await self._reload()
                elif number == signal.SIGUSR2:
                    await self._upgrade.leave()
                elif number == signal.SIGUSR1:
                    log.warning("asked by SIGUSR1 what every task waits for:\n%s", describe_tasks())
                else:
                    self._end(signal.Signals(number).name)

    def _end(self, name: str) -> None:
        if not self._is_mounted:
            self._mounting.cancel()
            if self._store is not None:
                # The state of the last daemon is being tidied up. The next mount can do that.
                self._store.close()
        elif self._stop.is_set():
            self._hurry()
        else:
            log.info("%s: uploading what is not saved yet, then unmounting", name)
            self._service.draining()
        self._stop.set()

    def _hurry(self) -> None:
        """Second signal: without a store every upload fails now, and its data is set aside."""
        log.warning("a second signal: keeping what is not uploaded in the state directory")
        if self._store is not None:
            self._store.close()
        self._draining.deadline = trio.current_time() + _SET_ASIDE_SECONDS

    async def _reload(self) -> None:
        """SIGHUP: the log file may have been moved, credentials rotated, the log level changed."""
        with self._service.reloading():
            await self._read_again()

    async def _read_again(self) -> None:
        self._logs.reopen()
        try:
            self._logs.set_levels(self._reread().log_level)
        except BadOptionsError as exc:
            log.error("the log level stays as it is: %s", "; ".join(exc.problems))  # noqa: TRY400
        try:
            if self._store is not None:
                await trio.to_thread.run_sync(self._store.refresh_credentials)
        except OssfsError as exc:
            log.error("the credentials stay as they are: %s", exc)  # noqa: TRY400
        else:
            log.info("credentials and log level were read again")
