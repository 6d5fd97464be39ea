"""Histories of a versioned bucket that boto3 makes, and what there was at a time by its account."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import hypothesis
from hypothesis import strategies as st

What = Literal["put", "delete", "undelete", "copy back", "forget"]
KEYS = ("a", "b", "dir/a", "dir/b", "dir/sub/deep", "dir.txt", "dirs/x", "new+ %41", "模型/é")
"""With names around a directory's, and what has to be quoted."""
MARKER = "dir/"
SIZES = (0, 1, 100, 5_000, 70_000)
"""Bytes. The last is more than a read that belongs to no stream fetches."""
PART_BYTES = 5 * 1024**2
_MOST_CHANGES = 12
_NS_PER_SECOND = 10**9
_EPOCH = datetime.fromtimestamp(0, UTC)
_DELETED_AT_ONCE = 1000
"""Most that DeleteObjects takes."""


@dataclass(frozen=True)
class Change:
    """What happens next; ``number`` chooses the key, by what is there by then."""

    what: What
    number: int
    size: int


@dataclass(frozen=True)
class Happened:
    """One change of one key, as who made it tells."""

    version_id: str
    content: bytes | None
    """None: it was deleted."""
    etag: str
    began_ns: int
    ended_ns: int


_CHANGES = st.lists(
    st.builds(
        Change,
        # Twice as often, and first, as hypothesis makes them simple.
        st.sampled_from(("put", "delete", "undelete", "put", "copy back", "delete", "forget")),
        st.integers(0, 99),
        st.sampled_from(SIZES),
    ),
    min_size=2,
    max_size=_MOST_CHANGES,
)


def drawn(count: int, seed: int) -> list[list[Change]]:
    """Random histories, drawn one by one: all are made together, which one example cannot hold."""
    found: list[list[Change]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_CHANGES)
    def take(changes: list[Change]) -> None:
        found.append(changes)

    take()
    return found


class History:
    """What happens below one prefix of a bucket that keeps versions, one change after the other.

    ``client`` is boto3's, without retries: what is done twice would be another history.
    ``in_parts`` makes every object one of several parts, ``markers`` a directory's now and then.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        changes: Sequence[Change],
        *,
        in_parts: bool = False,
        markers: bool = True,
    ) -> None:
        self.prefix = prefix
        self.changes = changes
        self.account: dict[str, list[Happened]] = {}
        """By key without the prefix, the oldest first; without what was removed for good."""
        self._client = client
        self._bucket = bucket
        self._in_parts = in_parts
        self._keys = (*KEYS, MARKER) if markers else KEYS
        self._random = random.Random(prefix)
        self._times_ns: dict[str, dict[str, int]] = {}

    def make(self, turn: int) -> None:
        """The change of that number, if there are so many."""
        if turn >= len(self.changes):
            return
        change = self.changes[turn]
        known = sorted(self.account)
        if change.what == "put" or not known:
            again = known and change.number % 2
            names = known if again else self._keys
            self._put(names[change.number // 2 % len(names)], change.size)
            return
        key = known[change.number % len(known)]
        past = self.account[key]
        if change.what == "forget":
            self._remove_for_good(key, past[0])
        elif change.what == "undelete" and past[-1].content is None:
            self._remove_for_good(key, past[-1])
        elif change.what == "copy back" and (
            older := [each for each in past[:-1] if each.content is not None]
        ):
            self._copy_back(key, older[-1])
        else:
            self._delete(key)

    def learn_times(self) -> None:
        """Take the store's times of the versions.

        Raises:
            AssertionError: the store lists other versions than were made, or a time at which this
                was not under way. Most stores cut off what is less than a second.
        """
        listed = listed_times(self._client, self._bucket, self.prefix)
        assert {self.prefix + key for key in self.account} == set(listed)
        for key, past in self.account.items():
            times = self._times_ns[key] = listed[self.prefix + key]
            assert set(times) == {each.version_id for each in past}, (self.prefix, key)
            for each in past:
                first_ns = each.began_ns // _NS_PER_SECOND * _NS_PER_SECOND
                assert first_ns <= times[each.version_id] <= each.ended_ns, (self.prefix, key, each)

    def at(self, at_ns: int) -> dict[str, Happened]:
        """What there was by the store's times: of each key the last that had happened."""
        found = {}
        for key, past in self.account.items():
            times = self._times_ns[key]
            last = [each for each in past if times[each.version_id] <= at_ns][-1:]
            if last and last[0].content is not None:
                found[key] = last[0]
        return found

    # -- changes ----------------------------------------------------------------------------------

    def _put(self, key: str, size: int) -> None:
        where = {"Bucket": self._bucket, "Key": self.prefix + key}
        content = b"" if key == MARKER else self._random.randbytes(size)
        began_ns = time.time_ns()
        if self._in_parts and content:
            content = self._random.randbytes(PART_BYTES) + content
            made = self._put_in_parts(where, content)
        else:
            made = self._client.put_object(**where, Body=content)
        self._note(key, made["VersionId"], content, made["ETag"], began_ns)

    def _put_in_parts(self, where: dict[str, str], content: bytes) -> dict[str, Any]:
        upload = {**where, "UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
        parts = []
        for number, body in enumerate((content[:PART_BYTES], content[PART_BYTES:]), start=1):
            done = self._client.upload_part(**upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": done["ETag"]})
        return dict(
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        )

    def _delete(self, key: str) -> None:
        began_ns = time.time_ns()
        made = self._client.delete_object(Bucket=self._bucket, Key=self.prefix + key)
        self._note(key, made["VersionId"], None, "", began_ns)

    def _copy_back(self, key: str, older: Happened) -> None:
        began_ns = time.time_ns()
        where = {"Bucket": self._bucket, "Key": self.prefix + key}
        made = self._client.copy_object(
            **where, CopySource={**where, "VersionId": older.version_id}
        )
        # Ceph 16 does not tell which version a copy is; nobody else changes the key.
        version_id = made.get("VersionId") or self._client.head_object(**where)["VersionId"]
        etag = made["CopyObjectResult"]["ETag"]
        self._note(key, version_id, older.content, etag, began_ns)

    def _remove_for_good(self, key: str, version: Happened) -> None:
        """Of a deletion: it has not happened."""
        self._client.delete_object(
            Bucket=self._bucket, Key=self.prefix + key, VersionId=version.version_id
        )
        self.account[key].remove(version)
        if not self.account[key]:
            del self.account[key]

    def _note(
        self, key: str, version_id: str, content: bytes | None, etag: str, began_ns: int
    ) -> None:
        happened = Happened(version_id, content, etag.strip('"'), began_ns, time.time_ns())
        self.account.setdefault(key, []).append(happened)


def listed_times(client: Any, bucket: str, prefix: str = "") -> dict[str, dict[str, int]]:
    """When, in ns, the store says that each version of each key came, by key and id."""
    found: dict[str, dict[str, int]] = {}
    where = {"Bucket": bucket, "Prefix": prefix}
    for page in client.get_paginator("list_object_versions").paginate(**where):
        for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            since = (each["LastModified"] - _EPOCH) // timedelta(microseconds=1)
            found.setdefault(each["Key"], {})[each["VersionId"]] = since * 1000
    return found


def forget_all(client: Any, bucket: str) -> None:
    """Remove every version of every key."""
    versions = [
        {"Key": key, "VersionId": version_id}
        for key, times in listed_times(client, bucket).items()
        for version_id in times
    ]
    for first in range(0, len(versions), _DELETED_AT_ONCE):
        some = versions[first : first + _DELETED_AT_ONCE]
        client.delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
