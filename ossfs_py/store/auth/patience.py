"""Waiting for an answer that may never come: from a metadata service, a program, a name server."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ossfs_py.errors import EnvironmentProblemError

T = TypeVar("T")


class PatientCall(Generic[T]):
    """One question that is asked repeatedly, and never twice at once.

    It is asked in a thread of its own, which is left alone if it takes too long. A late answer goes
    to the next caller. The caller makes sure that only one thread asks at a time.
    """

    def __init__(self, ask: Callable[[], T], patience_seconds: float, name: str) -> None:
        self._ask = ask
        self._patience_seconds = patience_seconds
        self._name = name
        self._answers: queue.SimpleQueue[tuple[T] | Exception] | None = None

    def answer(self) -> T:
        """The answer, or the exception of the question.

        Raises:
            EnvironmentProblemError: there was no answer in time.
        """
        if self._answers is None:
            answers = self._answers = queue.SimpleQueue[tuple[T] | Exception]()

            def run() -> None:
                try:
                    answers.put((self._ask(),))
                except Exception as exc:  # noqa: BLE001 - raised by whoever waits
                    answers.put(exc)

            threading.Thread(target=run, name=self._name, daemon=True).start()
        try:
            answer = self._answers.get(timeout=self._patience_seconds)
        except queue.Empty:
            raise EnvironmentProblemError(
                f"{self._name} did not answer within {self._patience_seconds:g} s"
            ) from None
        self._answers = None
        if isinstance(answer, Exception):
            raise answer
        return answer[0]
