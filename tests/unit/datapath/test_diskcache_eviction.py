"""In which order files leave, and that what is wanted stays."""

from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.datapath.diskcache.eviction import Candidate, eviction_order
from ossfs_py.datapath.diskcache.layout import key_id


def candidate(key: int, version: int, size: int, last: int, previous: int = 0) -> Candidate:
    return Candidate("00", f"{key:016x}-{version:040x}", size, last, previous)


@st.composite
def candidate_lists(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), unique=True))
    result = []
    for key, version in names:
        last = draw(st.integers(1, 1000))
        previous = draw(st.one_of(st.just(0), st.integers(1, last)))
        result.append(candidate(key, version, draw(st.integers(0, 100)), last, previous))
    return result


@given(candidate_lists())
def test_every_file_has_its_turn_once(files: list[Candidate]) -> None:
    assert sorted(eviction_order(files), key=id) == sorted(files, key=id)


@given(candidate_lists())
def test_superseded_versions_go_before_everything_else(files: list[Candidate]) -> None:
    order = eviction_order(files)
    keys = len({key_id(f.name) for f in files})
    kept_longest = order[len(order) - keys :]
    assert len({key_id(f.name) for f in kept_longest}) == keys


@given(candidate_lists())
def test_protected_files_never_exceed_their_share(files: list[Candidate]) -> None:
    order = eviction_order(files)
    keys = len({key_id(f.name) for f in files})
    current = order[len(order) - keys :]
    total = sum(f.allocated_bytes for f in current)
    # Everything from the last file used once on is protected.
    once = [i for i, f in enumerate(current) if not f.previous_use_ns]
    protected = current[once[-1] + 1 :] if once else []
    once_bytes = sum(current[i].allocated_bytes for i in once)
    assert sum(f.allocated_bytes for f in protected) <= max(0.8 * total, total - once_bytes)


def test_a_scan_of_files_read_once_does_not_push_out_what_is_loaded_daily() -> None:
    model = candidate(1, 0, 70, last=5, previous=4)
    scan = [candidate(2 + i, 0, 10, last=10 + i) for i in range(5)]
    assert eviction_order([*scan, model])[-1] == model


def test_least_recently_used_goes_first_among_equals() -> None:
    old, new = candidate(1, 0, 10, last=1), candidate(2, 0, 10, last=2)
    assert eviction_order([new, old]) == [old, new]
    old, new = candidate(1, 0, 10, last=3, previous=1), candidate(2, 0, 10, last=4, previous=2)
    assert eviction_order([new, old])[0] == old


def test_an_old_version_goes_first_however_often_it_was_used() -> None:
    old = candidate(1, 1, 10, last=8, previous=7)
    new = candidate(1, 2, 10, last=9)
    other = candidate(2, 1, 10, last=1)
    assert eviction_order([new, other, old])[0] == old
