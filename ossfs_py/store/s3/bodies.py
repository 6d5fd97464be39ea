"""Upload bodies, and the checksums that protect them on the way."""

import base64
import hashlib
import struct
from typing import Literal

from ossfs_py.model import Body, FileSlice, Pieces
from ossfs_py.store import checksum
from ossfs_py.store.http.payload import BufferPayload, FilePayload, Payload, PiecesPayload
from ossfs_py.store.options import StoreOptions

Checksum = Literal["none", "crc32c", "md5"]

CHECKSUM_HEADERS = "x-amz-checksum-"
"""Prefix of the names of all headers about checksums."""
CRC_HEADER = f"{CHECKSUM_HEADERS}crc32c"


def choose_checksum(options: StoreOptions, *, is_oss: bool, is_tls: bool) -> Checksum:
    """The checksum that protects uploads against damage on the way.

    CRC-32C costs 0.06 CPU-s per GiB; S3 and SeaweedFS verify it, and other stores ignore the
    header. OSS's S3 endpoint knows only Content-MD5 (2 CPU-s per GiB): over https, where TLS
    authenticates every byte already, it is sent only if requested.
    """
    if options.checksum != "auto":
        return options.checksum
    if not is_oss:
        return "crc32c"
    return "none" if is_tls else "md5"


def payload_of(body: Body) -> Payload:
    """``body`` in the form that the connection sends."""
    if isinstance(body, FileSlice):
        return FilePayload(body.fd, body.offset, body.size, body.crc32c)
    if isinstance(body, Pieces):
        return PiecesPayload(body.views)
    return BufferPayload(body)


def digest_headers(payload: Payload, kind: Checksum, *, anew: bool = False) -> dict[str, str]:
    """The header with the checksum of the payload; ``anew``: of its bytes as they are now, whatever
    is known.

    Raises:
        OSError: a file could not be read, or is shorter than promised.
    """
    if kind == "crc32c":
        return {CRC_HEADER: crc32c(payload, anew=anew)}
    if kind == "md5":
        return {"content-md5": base64.b64encode(md5(payload)).decode()}
    return {}


def crc32c(payload: Payload, *, anew: bool = False) -> str:
    """CRC-32C, base64 as in ``x-amz-checksum-crc32c``; 0.06 CPU-s per GiB."""
    if not anew and isinstance(payload, FilePayload) and payload.crc32c is not None:
        value = payload.crc32c
    else:
        value = 0
        for chunk in payload.chunks():
            value = checksum.crc32c(chunk, value)
    return base64.b64encode(struct.pack(">I", value)).decode()


def md5(payload: Payload) -> bytes:
    """MD5; 2 CPU-s per GiB, so only if the store supports nothing else."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in payload.chunks():
        digest.update(chunk)
    return digest.digest()
