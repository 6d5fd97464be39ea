"""What has to be known to open a store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Addressing = Literal["auto", "path", "virtual"]
ChecksumChoice = Literal["auto", "none", "crc32c", "md5"]
Choice = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """One bucket, how to reach it and how hard to try. Holds no secret.

    ``endpoint`` None means AWS in ``region``; without a scheme it means https. ``anonymous`` sends
    unsigned requests. ``scratch_prefix`` is where a probe may write its short-lived key (the
    mount's own prefix, so that a mount never writes outside of it).
    """

    bucket: str
    endpoint: str | None = None
    read_endpoint: str | None = None
    """Where the same objects can be had from nearer by; bytes are asked for there first."""
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
    """A connection that moves no byte for this long is given up and replaced."""
    retry_budget_seconds: float = 90.0
    """How long one call goes on trying since its first failure or last progress. A failed page
    fault kills the reading program, so this outlasts a minute without network, and with the first
    and the last attempt it stays below the 120 s after which the kernel reports a hung task."""
    upload_limit_bytes: int | None = None
    """Most bytes a second that all requests may send together; None: no limit. The same of what
    they receive:"""
    download_limit_bytes: int | None = None
    bind: tuple[str, ...] = ()
    """Addresses of this machine that connections come from in turn; none: the system's choice."""
    checksum: ChecksumChoice = "auto"
    conditional_reads: Choice = "auto"
    conditional_writes: Choice = "auto"
    part_copy: Choice = "auto"
    storage_class: str | None = None
    """Of new objects; others keep theirs."""
    sse: str | None = None
    """How the store encrypts all that is written (AES256, aws:kms, aws:kms:dsse); None: objects
    keep theirs, new ones get the bucket's."""
    sse_kms_key_id: str | None = None
    sse_key_file: Path | None = None
    """Holds the key that the store is sent with each request, to encrypt and decrypt with it
    (SSE-C): the store keeps none."""
    request_payer: bool = False
    """Requests are on the account of whoever asks, not of the bucket's owner."""
    acl: str | None = None
    """A canned ACL for all that is written; ``keep``: that of the object before, which is asked
    for; None: the bucket's."""
    scratch_prefix: str = ""
    traits_dir: Path | None = None
    """Where what endpoints were found to do is kept for a day; None: nowhere."""
    probe_afresh: bool = False
    """Keep what is found out, but believe nothing that was kept."""
