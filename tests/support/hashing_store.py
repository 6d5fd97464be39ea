"""The fake store with the ETags of S3: the MD5 of the bytes, or of the MD5s of the parts."""

import hashlib
from collections.abc import Sequence

from ossfs_py.model import Body, CommitRequest, MultipartUpload, ObjectVersion, Part
from tests.support.fake_store import FakeStore, StoredObject


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


class HashingStore(FakeStore):
    """Equal bytes that were stored in one way have equal ETags."""

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        made = super().put(request, body)
        return self._named(made.key, md5(self.content(made.key)).hex())

    def complete(
        self, upload: MultipartUpload, parts: Sequence[Part], request: CommitRequest
    ) -> ObjectVersion:
        with self._lock:
            sent = dict(self.uploads[upload.upload_id].parts)
            made = super().complete(upload, parts, request)
            sums = [md5(content) for _number, (_part, content) in sorted(sent.items())]
            return self._named(made.key, f"{md5(b''.join(sums)).hex()}-{len(sums)}")

    def _named(self, key: str, etag: str) -> ObjectVersion:
        with self._lock:
            stored = self.objects[key]
            self.objects[key] = StoredObject(stored.content, stored.info._replace(etag=etag))
            return self.objects[key].info.version
