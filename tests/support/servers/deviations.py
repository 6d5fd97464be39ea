"""What each server does not do, or does otherwise than S3: one line each, with its reason.

Whatever stands here is expected to fail, and said so in the report; what does not stand here must
pass, and what stands here and passes has to be taken out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ossfs_py.store.base import Capabilities

Kind = Literal["fails", "may fail", "not run"]
"""Always fails; by chance; or needs what is not there (the test could not even begin)."""


@dataclass(frozen=True)
class Deviation:
    """Tests that cannot pass on some servers."""

    servers: tuple[str, ...]
    tests: tuple[str, ...]
    """Patterns of fnmatch for ``mount/file.py::test[parameters]``, as pytest names a test below
    ``tests``."""
    reason: str
    kind: Kind = "fails"


ALL = Capabilities(conditional_create=True, conditional_replace=True, part_copy=True)
NONE = Capabilities(conditional_create=False, conditional_replace=False, part_copy=False)
CAPABILITIES = {
    "seaweedfs": ALL,
    "moto": ALL,
    "rclone": NONE,
    "ceph": ALL,
    "localstack": ALL,
    "swift": Capabilities(conditional_create=True, conditional_replace=False, part_copy=True),
    "juicefs": Capabilities(conditional_create=False, conditional_replace=False, part_copy=True),
}
"""What probing must find out."""

VERSIONS = {"seaweedfs": True, "moto": False}
"""Which servers keep versions, and whether those stay when versioning is suspended and the object
is overwritten (moto forgets them)."""

CHOSEN = ("ceph", "juicefs", "localstack", "moto", "rclone", "seaweedfs", "swift", "own")

DEVIATIONS = (
    Deviation(
        ("rclone",),
        ("contract/test_store.py::test_a_large_object_is_copied_in_parts*",),
        "there are no part copies; what is larger than one copy may be cannot be renamed",
    ),
    Deviation(
        ("rclone",),
        ("contract/test_store.py::test_the_owner_is_that_of_the_very_key*",),
        "listings tell no owner",
    ),
    Deviation(
        ("rclone", "juicefs"),
        ("contract/test_store.py::test_of_many_who_create_at_once_one_succeeds*",),
        "conditions are ignored; the key is looked at first, which is not atomic",
        "may fail",
    ),
    Deviation(
        ("swift",),
        ("contract/test_store.py::test_of_many_who_create_at_once_one_succeeds*",),
        "If-None-Match: * is obeyed, but not atomically",
        "may fail",
    ),
    Deviation(
        CHOSEN,
        (
            "contract/test_store.py::test_check_tells_wrong_keys_and_forbidden_buckets",
            "mount/test_bad_input.py::test_a_forbidden_bucket",
            "mount/test_credentials.py::*",
            "mount/test_doctor.py::test_rights_that_are_missing_are_told_one_by_one",
        ),
        "the test needs a second account, which it makes on the embedded server only",
        "not run",
    ),
)


def of_test(node_id: str, server: str) -> Iterator[Deviation]:
    """What is known of one test on one server; ``node_id`` is pytest's."""
    name = node_id.removeprefix("tests/")
    for one in DEVIATIONS:
        # Brackets are literal in node ids and sets in patterns.
        if server in one.servers and any(
            fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in one.tests
        ):
            yield one
