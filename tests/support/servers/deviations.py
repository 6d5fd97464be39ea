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

NO_CLASSES = "there is one storage class; another one is refused"
NOT_KEPT: dict[str, dict[str, str]] = {
    "seaweedfs": {"WebsiteRedirectLocation": "it is not kept of an object of several parts"},
    "ceph": {
        "StorageClass": NO_CLASSES,
    },
    "swift": {
        "StorageClass": NO_CLASSES,
        "ServerSideEncryption": "refused",
        "WebsiteRedirectLocation": "refused",
        "Tagging": "refused",
    },
    "juicefs": {
        "ContentLanguage": "it is not kept",
        "ContentEncoding": "it is not kept",
        "Expires": "it is not kept",
        "StorageClass": NO_CLASSES,
        "ServerSideEncryption": "refused",
        "WebsiteRedirectLocation": "it is not kept",
    },
    "rclone": {
        "Tagging": "it is not kept, and asking for it is answered with 500",
        "Expires": "it is not kept",
    },
}
"""What each server cannot hold of what describes an object (words of boto3), and why. Nobody can
carry that over; all the rest has to be there after each change."""

ENCRYPTION = {"ceph": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "tests-key"}}
"""How objects are encrypted in tests where it is not AES256: Ceph 16 has no keys of its own, but a
key service for tests."""

RANGES_COST_THE_OBJECT = {
    "moto": "it copies the whole object in its memory to answer a request about any part of it",
    "rclone": "it reads the whole object to answer a request about any part of it",
}
"""Servers on which a file of N ranges costs N objects: tests that read a large file take one of
64 MiB there."""

LACKS: dict[str, dict[str, str]] = {
    "ceph": {"at completion": "ignored", "copy pins": "ignored"},
    "swift": {"replace-only": "refused", "one creator": "ignored"},
    "juicefs": {"create-only": "ignored", "replace-only": "ignored", "read pins": "ignored"},
    "localstack": {"tag counts": "ignored"},
    "moto": {"copy pins": "ignored"},
    "rclone": {
        "create-only": "ignored",
        "replace-only": "ignored",
        "part copies": "refused",
        "read pins": "ignored",
        "directories": "refused",
    },
}
"""What doctor says of each feature that does not work as it should."""

VERSIONS = {"seaweedfs": True, "moto": False}
"""Which servers keep versions, and whether those stay when versioning is suspended and the object
is overwritten (moto forgets them)."""

CHOSEN = ("ceph", "juicefs", "localstack", "moto", "rclone", "seaweedfs", "swift", "own")

CUSTOMERS_KEYS = (
    "mount/test_descriptions.py::test_objects_are_written_and_read_with_the_customers_key*",
    "mount/test_descriptions.py::test_an_object_with_somebody_elses_key_hides_nobody",
)

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
        ("juicefs",),
        ("contract/test_store.py::test_one_request_removes_many_objects*",),
        "the answer to DeleteObjects names no key: each is removed again by a request of its own",
    ),
    Deviation(
        ("juicefs",),
        ("mount/test_write_back.py::test_removing_a_tree_waits_for_nothing_and_takes_few*",),
        "the answer to DeleteObjects names no key: each is removed again by a request of its own",
    ),
    Deviation(
        ("rclone", "juicefs"),
        ("contract/test_store.py::test_of_many_who_create_at_once_one_succeeds*",),
        "conditions are ignored; the key is looked at first, which is not atomic",
        "may fail",
    ),
    Deviation(
        ("ceph", "swift", "juicefs"),
        ("mount/test_descriptions.py::test_new_files_get_the_configured_class*",),
        NO_CLASSES,
    ),
    Deviation(
        ("swift", "rclone", "moto"),
        CUSTOMERS_KEYS,
        "a customer's key (SSE-C) is ignored, and the object stored as it is",
    ),
    Deviation(
        ("juicefs",),
        CUSTOMERS_KEYS,
        "a customer's key (SSE-C) is refused over http",
    ),
    Deviation(
        ("moto",),
        ("mount/test_names.py::test_any_name_is_the_key_byte_for_byte",),
        "a key with a line feed is answered with 404",
    ),
    Deviation(
        ("rclone",),
        ("mount/test_descriptions.py::test_who_owns_an_object_is_an_attribute",),
        "listings tell no owner",
    ),
    Deviation(
        ("rclone",),
        ("contract/test_store.py::test_no_byte_of_another_version_is_given*",),
        "files are replaced in place: on a busy machine HEAD may still tell of the version before "
        "when bytes of the next one were sent (seen at loads of 12 and more)",
        "may fail",
    ),
    Deviation(
        ("rclone",),
        ("mount/test_semantics.py::test_a_file_that_changes_while_it_is_streamed*",),
        "rclone reads the whole object to answer a request about any part of it: on a busy machine "
        "that outlasts the stall timeout (seen at a load of 20), and a read is EIO, not ESTALE",
        "may fail",
    ),
    Deviation(
        ("swift",),
        (
            "mount/test_attributes.py::test_user_attributes_are_set_listed_and_removed",
            "mount/test_names.py::test_a_symlink_target_may_have_any_bytes*",
        ),
        "a metadata value of more than 256 bytes is refused: ENOSPC, of a link ENAMETOOLONG",
    ),
    Deviation(
        ("swift",),
        ("mount/test_semantics.py::test_an_unlinked_file_is_read_and_written*",),
        "a listing may tell of an object for a moment after it was removed",
        "may fail",
    ),
    Deviation(
        ("localstack",),
        ("mount/test_descriptions.py::test_a_renamed_directory_keeps_what_listings_tell*",),
        "a copy that the store makes loses Expires",
    ),
    Deviation(
        ("localstack",),
        ("mount/test_descriptions.py::test_objects_of_which_nothing_is_to_be_kept_cost_no*",),
        "a HEAD does not tell how many tags an object has: they are asked for each time",
    ),
    Deviation(
        ("rclone",),
        ("mount/test_descriptions.py::test_objects_of_which_nothing_is_to_be_kept_cost_no*",),
        "copies are answered without an ETag, which costs another HEAD",
    ),
    Deviation(
        ("rclone", "juicefs"),
        ("mount/test_names.py::test_a_symlink_target_may_have_any_bytes*",),
        "metadata of 1,900 bytes is refused: the target of a link is then ENAMETOOLONG",
    ),
    Deviation(
        ("rclone",),
        (
            "mount/test_names.py::test_an_empty_directory_persists_over_a_remount",
            "mount/test_write_back.py::test_a_directory_is_sent_with_all_that_was_done_to_it",
            "mount/test_write_back.py::test_what_waits_for_one_bucket_comes_to_no_other",
            "mount/test_write_back.py::test_directories_of_a_killed_daemon_are_made_by_the_next*",
            "mount/test_write_back.py::test_directories_that_the_store_does_not_take_are_told",
        ),
        "what stands for an empty directory would become a file, so it is not stored",
    ),
    Deviation(
        ("rclone", "juicefs"),
        ("mount/test_names.py::test_a_directory_hides_an_object_of_its_name*",),
        "no key can be below that of an object (500)",
    ),
    Deviation(
        ("rclone", "juicefs"),
        ("mount/test_descriptions.py::test_the_version_of_a_file_just_written_is_known*",),
        "there are no versions of objects",
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
