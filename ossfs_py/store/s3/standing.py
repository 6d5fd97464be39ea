"""Headers that the mount's options put on every request of a kind: the payer, the encryption, the
ACL. Probes carry them as well, so that a bucket's policy treats them like writes.
"""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.model import NO_METADATA
from ossfs_py.store.auth.sourcefiles import check_owner
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.description import CUSTOMER_KEY, ENCRYPTION

_KEY_BYTES = 32
"""Key size of AES-256, the only cipher of SSE-C."""
_MAX_FILE_BYTES = 1024
_MAKE = ("PutObject", "CreateMultipartUpload", "CopyObject")
_WITH_KEY = (*_MAKE, "UploadPart", "UploadPartCopy", "HeadObject", "GetObject")
_WITH_SOURCE_KEY = ("CopyObject", "UploadPartCopy")


class StandingHeaders:
    """The headers by operation. Immutable."""

    def __init__(self, options: StoreOptions) -> None:
        """Reads the key file, if there is one.

        Raises:
            EnvironmentProblemError: it cannot be used; the message never shows its content.
        """
        always = {"x-amz-request-payer": "requester"} if options.request_payer else {}
        made = {}
        if options.sse is not None:
            made[ENCRYPTION] = options.sse
        if options.sse_kms_key_id is not None:
            made[f"{ENCRYPTION}-aws-kms-key-id"] = options.sse_kms_key_id
        if options.acl not in (None, "keep"):
            made["x-amz-acl"] = options.acl or ""
        key = {} if options.sse_key_file is None else _headers_of(read_key(options.sse_key_file))
        by_operation: dict[str, dict[str, str]] = {}
        for names, headers in ((_MAKE, made), (_WITH_KEY, key)):
            for name in names:
                by_operation[name] = by_operation.get(name, {}) | headers
        for name in _WITH_SOURCE_KEY:
            by_operation[name] = by_operation.get(name, {}) | {
                header.replace("x-amz-", "x-amz-copy-source-", 1): value
                for header, value in key.items()
            }
        self._always: Mapping[str, str] = always or NO_METADATA
        self._by_operation = {name: always | each for name, each in by_operation.items()}

    def of(self, operation: str) -> Mapping[str, str]:
        """The headers of every request of ``operation``."""
        return self._by_operation.get(operation, self._always)


def read_key(path: Path) -> bytes:
    """The key in a file: 32 bytes, or these in base64 or in hexadecimal digits.

    Raises:
        EnvironmentProblemError: the file is unreadable, belongs to another user, is readable by
            others, or has no key.
    """
    what = f"the SSE-C key file {path}"
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            content = file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        raise EnvironmentProblemError(f"{what} cannot be read: {exc.strerror}") from None
    check_owner(what, info)
    mode = stat.S_IMODE(info.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EnvironmentProblemError(
            f"{what} can be read by others (mode {mode:04o}): run chmod 600"
        )
    if len(content) == _KEY_BYTES:
        return content
    text = content.strip()
    for decode in (bytes.fromhex, _from_base64):
        try:
            key = decode(text.decode("ascii"))
        except ValueError:
            continue
        if len(key) == _KEY_BYTES:
            return key
    raise EnvironmentProblemError(
        f"{what} holds no key of {_KEY_BYTES} bytes, plain, in base64 or in hexadecimal digits: "
        "make one with 'openssl rand -base64 32'"
    )


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc


def _headers_of(key: bytes) -> dict[str, str]:
    digest = hashlib.md5(key, usedforsecurity=False).digest()  # as the protocol requires
    return {
        f"{CUSTOMER_KEY}algorithm": "AES256",
        f"{CUSTOMER_KEY}key": base64.b64encode(key).decode(),
        f"{CUSTOMER_KEY}key-md5": base64.b64encode(digest).decode(),
    }
