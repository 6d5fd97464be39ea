"""Starts a mount: in this process, or in a daemon whose first words are waited for."""

import faulthandler
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ossfs_py.cli.background import Ready
from ossfs_py.cli.kept import NOT_THERE, become_keeper, keep_to_ourselves, keeper_of
from ossfs_py.cli.loading import loading
from ossfs_py.config import Settings
from ossfs_py.config.machine import secret_values, stderr_is_the_journal
from ossfs_py.errors import EnvironmentProblemError, UserError
from ossfs_py.host.deposit import Deposit, DepositError
from ossfs_py.host.handover import Predecessor
from ossfs_py.host.kernelside import given_descriptor
from ossfs_py.host.notify import Notifier

log = logging.getLogger(__name__)


def start(
    settings: Settings,
    reread: Callable[[], Settings],
    warn: Callable[[str], None],
    predecessor: Predecessor | None = None,
) -> int:
    """Mount, and return the exit code: of the whole life of the mount in the foreground, of
    its start otherwise.

    ``reread`` reads all sources of settings again (for SIGHUP). ``warn`` is told, of a mount in
    the background, what a person should know of it. ``predecessor`` is the daemon that this one is
    to take over from.

    Raises:
        UserError: why it cannot be mounted.
    """

    kept = keeper_of(os.environ)
    becomes = None
    if settings.outlives_daemon and kept is None:
        if _is_below(settings.mountpoint):
            # The next daemon begins in this directory, and would wait for itself.
            raise EnvironmentProblemError(
                "with --restarts or --keeper the command cannot be given in the directory that it"
                " mounts"
            )
        becomes = partial(become_keeper, settings.restarts, _deposit(settings, warn))
        if settings.foreground:
            becomes(leads=True)
    keeper, writer = kept or (None, NOT_THERE)

    def serve(ready: Ready) -> int:
        if predecessor is None:
            return serve_told(ready)
        with predecessor.hears_failures():
            import ossfs_py.daemon.life  # noqa: F401 (what is missing there is told as such)

            return serve_told(ready)

    def serve_told(ready: Ready) -> int:
        from ossfs_py.daemon.options import log_options
        from ossfs_py.telemetry.logs import open_logs

        keep_to_ourselves()
        logs = open_logs(log_options(settings), in_journal=stderr_is_the_journal(os.environ))
        logs.add_secrets(secret_values(os.environ))
        # In the background it would speak for whoever has started the command.
        notifier = Notifier.from_environment(os.environ) if settings.foreground else Notifier()
        try:
            # Imported after the fork: what it needs takes longer to import than the command may
            # take to say that an option is wrong, and threads do not survive a fork.
            with loading():
                from ossfs_py.daemon.life import end_what_was_given_up, run

            if keeper is not None and keeper.given_up:
                return end_what_was_given_up(settings, keeper.given_up, notifier)
            return run(settings, ready, logs, reread, notifier, keeper, predecessor)
        except UserError as exc:
            if not _on_terminal(settings):
                log.error("%s", exc)  # noqa: TRY400 (a sentence for people)
            if predecessor is None or not predecessor.serves:
                notifier.status(str(exc))
            raise
        except Exception as exc:
            log.exception("the daemon failed")
            raise UserError(f"the daemon failed, see its log: {exc!r}") from None
        finally:
            notifier.close()
            logs.close()

    if settings.foreground:
        # If a watchdog ends a hung daemon with SIGABRT, the log then says where it hung.
        faulthandler.enable()
        return serve(_said_in_the_log)
    from ossfs_py.cli.background import be_the_daemon, run_detached

    if keeper is not None:
        be_the_daemon(serve, writer if writer != NOT_THERE else os.open(os.devnull, os.O_WRONLY))
    keeps = None if becomes is None else partial(becomes, leads=False)
    is_given = given_descriptor(settings.mountpoint) is not None
    return run_detached(serve, None if is_given else settings.mountpoint, warn, keeps)


def _deposit(settings: Settings, warn: Callable[[str], None]) -> Deposit | None:
    """The place of the mount at the node's keeper; None where it has none.

    Raises:
        EnvironmentProblemError: the keeper cannot be had.
    """
    if settings.keeper is None:
        return None
    if given_descriptor(settings.mountpoint) is not None:
        raise EnvironmentProblemError(
            f"--keeper: the program that has made the mount of {settings.mountpoint} keeps it"
        )
    told = {"mountpoint": str(settings.mountpoint), "source": settings.source}
    try:
        return Deposit.claimed(str(settings.keeper), told, warn)
    except DepositError as exc:
        raise EnvironmentProblemError(f"--keeper: {exc}") from None


def _said_in_the_log(warnings: Sequence[str] = ()) -> None:
    """In the foreground the log, which has told it, is all that anybody looks at."""
    del warnings


def _is_below(directory: Path) -> bool:
    """Whether this process works there, or further down."""
    try:
        return Path.cwd().is_relative_to(directory)
    except OSError:
        return False  # it is gone


def _on_terminal(settings: Settings) -> bool:
    """Whether the log goes where the command's own words go."""
    return settings.foreground and settings.log_file is None
