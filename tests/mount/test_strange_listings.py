"""Mounts of stores whose listings are odd, huge or wrong: no crash, no loop, the rest intact."""

import errno
import re
import string
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ossfs_py.model import ListPage, ListQuery
from tests.conftest import MountFactory
from tests.support.endless_store import EndlessStore, TreeKeys
from tests.support.errnos import refused
from tests.support.fake_store import FakeStore
from tests.support.listing_server import BUCKET, serving
from tests.support.mounting import Mount

PATIENCE_SECONDS = 120.0
SCRIPTS = [
    "العربية",
    "עברית",
    "हिन्दी",
    "ไทย",
    "한국어",
    "日本語かな",
    "Ελληνικά",
    "кириллица",
    "ქართული",
    "አማርኛ",
    "family 👨‍👩‍👧",
    "right\u200fto\u202eleft",
    "zero\u200bwidth\ufeff",
    "a\u0308 ä",
    "\U0001d509raktur",
]
PRINTABLE = [f"x{one}y" for one in string.printable if one != "/"]
LONGEST = "/".join(["k" * 255] * 4) + "/"
"""With a name of no byte it has 1,024 bytes: a directory's marker, the longest key there is."""
UNNAMEABLE = ["./dot", "../up", "a//b", "long" * 64, "nul\0byte"]


@pytest.fixture
def mounted_on(mount: MountFactory) -> Callable[[str], Mount]:
    """Mounts the bucket at an endpoint, to read only."""

    def start(endpoint: str, **options: str) -> Mount:
        plain = {"data_path": "direct", "anonymous": True, "read_only": True}
        return mount(BUCKET, endpoint=endpoint, **plain, **options)

    return start


def names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


def files_below(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_whatever_a_path_can_name_is_there_and_the_rest_is_told_once(
    mounted_on: Callable[[str], Mount],
) -> None:
    store = FakeStore(page_size=7)  # so that pages end in the middle of everything
    names = [*PRINTABLE, *SCRIPTS, *(f"dir {n}/{m}" for n in range(5) for m in range(4))]
    names += [LONGEST, LONGEST[:-2] + "z", "both/inside", "marked/file"]
    wanted = {name: name.encode() for name in names if not name.endswith("/")}
    for name in [*names, *UNNAMEABLE]:
        store.seed(name, b"" if name.endswith("/") else name.encode())
    # An object, a marker and a key below of one name; a marker with content.
    for key in ("both", "both/", "marked/"):
        store.seed(key, b"content")
    with serving(store) as endpoint:
        mounted = mounted_on(endpoint)
        for _ in range(2):
            assert files_below(mounted.path) == wanted
        assert (mounted.path / LONGEST).is_dir()
        assert names_in(mounted.path / "marked") == ["file"]
        told = re.findall(r"key ('.*'|\".*\") is hidden: no path can name it", mounted.log)
        assert len(told) == len(set(told)) == len(UNNAMEABLE)
        assert len(re.findall(r"object 'both' is hidden", mounted.log)) == 1
        assert mounted.unmount() == 0


class Confused(FakeStore):
    """Repeats the last entries of each page on the next one, and turns every page around."""

    def list_page(self, query: ListQuery) -> ListPage:
        if (token := query.token) is not None:
            earlier = [key for key in self.keys() if key < token]
            query = replace(query, token=earlier[-2] if len(earlier) > 2 else token)
        page = super().list_page(query)
        return ListPage(page.objects[::-1], page.prefixes[::-1], page.next_token)


def test_a_store_that_repeats_itself_out_of_order_is_listed_once_and_whole(
    mounted_on: Callable[[str], Mount],
) -> None:
    store = Confused(page_size=10)
    names = [f"d{d}/f{f:02}" for d in range(5) for f in range(25)] + [f"z{n:02}" for n in range(35)]
    for name in names:
        store.seed(name, name.encode())
    with serving(store) as endpoint:
        mounted = mounted_on(endpoint)
        for directory in (mounted.path, *(mounted.path / f"d{d}" for d in range(5))):
            listed = names_in(directory)
            assert len(listed) == len(set(listed))
        assert files_below(mounted.path) == {name: name.encode() for name in names}
        assert mounted.unmount() == 0


def test_listings_that_break_off_fail_alone_and_are_told(
    mounted_on: Callable[[str], Mount],
) -> None:
    store = FakeStore()
    for name in ("well/a", "well/b", "torn/c", "torn/d", "e"):
        store.seed(name, name.encode())
    mended = False

    def break_off(body: bytes) -> bytes:
        return body[:-40] if b"torn/c" in body and not mended else body

    with serving(store, break_off) as endpoint:
        mounted = mounted_on(endpoint, retry_budget="500ms")
        assert sorted(names_in(mounted.path)) == ["e", "torn", "well"]
        with refused(errno.EIO):
            names_in(mounted.path / "torn")
        assert (mounted.path / "torn/c").read_bytes() == b"torn/c"
        assert sorted(names_in(mounted.path / "well")) == ["a", "b"]
        errors = [line for line in mounted.log.splitlines() if " ERROR " in line]
        assert len(errors) == 1
        assert "readdir of '/torn' failed" in errors[0]
        assert "the LIST answer is not whole XML" in errors[0]
        mended = True
        assert sorted(names_in(mounted.path / "torn")) == ["c", "d"]
        assert mounted.unmount() == 0


def test_ls_of_a_million_files_prints_after_two_pages(
    mounted_on: Callable[[str], Mount],
) -> None:
    store = EndlessStore(TreeKeys(1_000_000))
    printed = threading.Event()

    def after_two_pages(_method: str, _key: str) -> None:
        if store.requests["list_page"] > 2:
            assert printed.wait(PATIENCE_SECONDS)

    with serving(store) as endpoint:
        mounted = mounted_on(endpoint)
        store.take_requests()
        store.on_request = after_two_pages
        command = ["ls", "-U", mounted.path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            try:
                assert program.stdout.readline() == b"n000000000\n"
            finally:
                printed.set()
                program.kill()
        assert mounted.unmount() == 0
