"""A question that is not answered in time."""

import threading

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.patience import PatientCall


def test_an_answer_and_an_error_come_back() -> None:
    assert PatientCall(lambda: 7, 5.0, "somebody").answer() == 7

    def fail() -> int:
        raise LookupError("nothing there")

    question = PatientCall(fail, 5.0, "somebody")
    for _ in range(2):
        with pytest.raises(LookupError, match="nothing there"):
            question.answer()


def test_a_late_answer_is_the_answer_to_the_next_who_asks() -> None:
    told, asked = threading.Event(), []

    def slow() -> str:
        asked.append(1)
        told.wait()
        return "at last"

    question = PatientCall(slow, 0.05, "somebody")
    for _ in range(3):
        with pytest.raises(EnvironmentProblemError, match=r"somebody did not answer within 0.05 s"):
            question.answer()
    told.set()
    while True:
        try:
            assert question.answer() == "at last"
            break
        except EnvironmentProblemError:
            continue
    assert len(asked) == 1
    assert question.answer() == "at last"
    assert len(asked) == 2
