"""Settings of a store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Addressing = Literal["auto", "path", "virtual"]
ChecksumChoice = Literal["auto", "none", "crc32c", "md5"]
Choice = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """One bucket, how to reach it, and how long to try. Holds no secret.

    ``endpoint`` None means AWS in ``region``; without a scheme it means https. ``anonymous`` sends
    unsigned requests. ``scratch_prefix`` is the prefix for a probe's short-lived keys (the mount's
    own prefix, so that a mount never writes outside of it).
    """

    bucket: str
    endpoint: str | None = None
    read_endpoint: str | None = None
    """A nearer endpoint with the same objects; bytes are requested there first."""
    region: str | None = None
    addressing: Addressing = "auto"
    profile: str | None = None
    credentials_file: Path | None = None
    anonymous: bool = False
    ca_bundle: Path | None = None
    verify_tls: bool = True
    concurrency: int = 16
    """Most requests at once; as many idle connections are kept."""
    connect_timeout_seconds: float = 5.0
    stall_timeout_seconds: float = 10.0
    """A connection that moves no byte for this long is closed and replaced."""
    retry_budget_seconds: float = 90.0
    """How long one call is retried after its first failure or last progress. A failed page fault
    kills the reading program, so this outlasts a minute without network. With the first and the
    last attempt it stays below the 120 s after which the kernel reports a hung task.
    """
    upload_limit_bytes: int | None = None
    """Most bytes a second that all requests may send together; None: no limit. The next field is
    the same for received bytes:
    """
    download_limit_bytes: int | None = None
    bind: tuple[str, ...] = ()
    """Addresses of this machine that connections come from in turn; none: the system's choice."""
    checksum: ChecksumChoice = "auto"
    conditional_reads: Choice = "auto"
    conditional_writes: Choice = "auto"
    part_copy: Choice = "auto"
    storage_class: str | None = None
    """For new objects; replaced objects keep theirs."""
    sse: str | None = None
    """The store's encryption of all written objects (AES256, aws:kms, aws:kms:dsse); None: replaced
    objects keep theirs, new ones get that of the bucket.
    """
    sse_kms_key_id: str | None = None
    sse_key_file: Path | None = None
    """File with the key that each request sends to the store, for encryption and decryption
    (SSE-C): the store keeps no key.
    """
    request_payer: bool = False
    """The requester pays for requests, not the bucket's owner."""
    acl: str | None = None
    """A canned ACL for all written objects; ``keep``: that of the replaced object, which costs a
    request; None: that of the bucket.
    """
    scratch_prefix: str = ""
    traits_dir: Path | None = None
    """Directory where the traits of endpoints are kept for a day; None: they are not kept."""
    probe_afresh: bool = False
    """Probe everything again: keep new results, but use no old ones."""
