"""The bounded dictionary of what was put last."""

from ossfs_py.runtime.recent import Recent


def test_what_was_put_first_goes_first() -> None:
    recent: Recent[str, int] = Recent(2)
    for number, name in enumerate("abac"):
        recent.put(name, number)
    assert dict(recent) == {"a": 2, "c": 3}
    assert recent.get("b") is None
    assert recent.pop("b", None) is None


def test_a_kept_entry_that_is_replaced_displaces_none() -> None:
    recent: Recent[str, int] = Recent(2)
    for number, name in enumerate("abbb"):
        recent.put(name, number)
    assert dict(recent) == {"a": 0, "b": 3}
