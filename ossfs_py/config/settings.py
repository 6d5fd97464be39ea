"""The one settings model. Command line options, ``-o`` names, environment variables and TOML keys
are all generated from its fields, and so is ``--help``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from ossfs_py.config import machine as host
from ossfs_py.config import units, values
from ossfs_py.config.conflicts import CONFLICT, CONFLICT_RULES
from ossfs_py.telemetry.loglevels import AREAS, LogLevels, parse_levels

ARGUMENTS = {"bucket": "BUCKET", "mountpoint": "MOUNTPOINT"}
"""Fields that are positional arguments on the command line."""
NOT_OPTIONS = frozenset({*ARGUMENTS, "kernel_options"})


Size = Annotated[int, BeforeValidator(units.parse_size)]
Duration = Annotated[float, BeforeValidator(units.parse_duration)]
Mode = Annotated[int, BeforeValidator(units.parse_mode)]
Flag = Annotated[bool, BeforeValidator(units.parse_flag)]
Count = Annotated[int, BeforeValidator(units.parse_count)]
Moment = Annotated[int, BeforeValidator(units.parse_moment)]
AbsolutePath = Annotated[Path, BeforeValidator(values.absolute_path)]


def _option(
    group: str, metavar: str, description: str, *, shown_default: str | None = None, **field: Any
) -> Any:
    """A field that is an option: its help group, the placeholder of its value and its text."""
    extra: JsonDict = {"group": group, "metavar": metavar, "shown_default": shown_default}
    return Field(description=description, json_schema_extra=extra, **field)


STORE, DATA, NAMES, WRITING, LIMITS, MOUNT, LOGS = (
    "Store and credentials",
    "Data path",
    "Names and attributes",
    "Writing",
    "Network and memory",
    "Mount",
    "Running",
)
GROUPS = (STORE, DATA, NAMES, WRITING, LIMITS, MOUNT, LOGS)


class Settings(BaseModel):
    """Everything one mount can be told. Immutable; every path is absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bucket: Annotated[str, BeforeValidator(values.bucket_name)] = Field(
        description="The bucket to mount."
    )
    mountpoint: AbsolutePath = Field(description="The directory to mount it at.")
    prefix: Annotated[str, BeforeValidator(values.key_prefix)] = _option(
        STORE,
        "PREFIX",
        "Mount only the keys below this prefix (same as BUCKET/PREFIX).",
        default="",
    )
    endpoint: Annotated[str, BeforeValidator(values.endpoint_url)] | None = _option(
        STORE,
        "URL",
        "Address of the store, such as http://127.0.0.1:9000 or oss-cn-hangzhou.aliyuncs.com.",
        default=None,
        shown_default="AWS S3",
    )
    region: str | None = _option(
        STORE,
        "NAME",
        "Region of the bucket.",
        default=None,
        shown_default="from the endpoint or the profile",
    )
    addressing: Literal["auto", "path", "virtual"] = _option(
        STORE,
        "auto|path|virtual",
        "Whether the bucket stands in the path or in the host name.",
        default="auto",
    )
    profile: str | None = _option(
        STORE, "NAME", "Profile of the shared AWS configuration files.", default=None
    )
    credentials_file: AbsolutePath | None = _option(
        STORE,
        "FILE",
        "Password file with lines id:secret or bucket:id:secret (or with spaces between them); "
        "nobody else may read it.",
        default=None,
    )
    anonymous: Flag = _option(
        STORE, "", "Send unsigned requests, for public buckets.", default=False
    )
    ca_bundle: AbsolutePath | None = _option(
        STORE, "FILE", "Certificates to trust instead of the system's.", default=None
    )
    verify_tls: Flag = _option(STORE, "", "Check the store's certificate.", default=True)
    request_payer: Flag = _option(
        STORE,
        "",
        "Pay for the requests yourself: buckets whose owner wants that answer nobody else.",
        default=False,
    )
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = _option(
        STORE,
        "AES256|aws:kms|aws:kms:dsse",
        "How the store encrypts all that is written.",
        default=None,
        shown_default="objects keep theirs, new ones get the bucket's",
    )
    sse_kms_key_id: Annotated[str, BeforeValidator(values.key_id)] | None = _option(
        STORE,
        "ID",
        "Key of the store's key service, for --sse aws:kms.",
        default=None,
        shown_default="the account's",
    )
    sse_key_file: AbsolutePath | None = _option(
        STORE,
        "FILE",
        "Key to encrypt and decrypt all objects with (SSE-C), which the store does not keep: 32 "
        "bytes, plain, in base64 or hexadecimal; nobody else may read the file.",
        default=None,
    )

    data_path: Literal["temp", "cache", "direct"] = _option(
        DATA,
        "temp|cache|direct",
        "Where bytes live: temporary files, a lasting disk cache, or memory only.",
        default="temp",
    )
    temp_dir: AbsolutePath = _option(
        DATA,
        "DIR",
        "Existing directory for temporary files.",
        default_factory=lambda: host.default_temp_dir(os.environ),
        shown_default="$TMPDIR or /var/tmp",
    )
    cache_dir: AbsolutePath = _option(
        DATA,
        "DIR",
        "Directory of the cache data path; made when its parent exists.",
        default_factory=lambda: host.default_cache_dir(os.environ),
        shown_default="/var/cache/ossfs-py, or ~/.cache/ossfs-py",
    )
    cache_size_bytes: Size | None = _option(
        DATA,
        "SIZE",
        "Most bytes the cache may hold.",
        default=None,
        ge=units.MIB,
        shown_default="what --min-free leaves",
    )
    min_free_bytes: Size | None = _option(
        DATA,
        "SIZE",
        "Room on the local disk that cache, temporary files and data not yet uploaded leave to"
        " others.",
        default=None,
        shown_default="1GiB, or a tenth of a smaller disk",
    )
    cache_writes: Flag = _option(DATA, "", "Let written files enter the cache, too.", default=True)
    block_size_bytes: Size = _option(
        DATA,
        "SIZE",
        "Unit of download, a power of two.",
        default=8 * units.MIB,
        ge=64 * units.KIB,
        le=64 * units.MIB,
    )

    model_hints: Flag = _option(
        DATA,
        "",
        "Use what model files tell: tensor bounds, zip directories, the shard that comes next.",
        default=True,
    )
    small_file_prefetch: Flag = _option(
        DATA,
        "",
        "Fetch the next small files of a directory that is read file after file.",
        default=True,
    )

    metadata_ttl_seconds: Duration = _option(
        NAMES,
        "DURATION",
        "How long attributes and listings are trusted; 0 asks every time.",
        default=60.0,
    )
    negative_ttl_seconds: Duration = _option(
        NAMES,
        "DURATION",
        "How long a name may be taken for absent after a look at it, or at its directory; 0 asks"
        " every time.",
        default=1.0,
    )
    posix_metadata: Flag = _option(
        NAMES,
        "",
        "Ask every object for stored modes, owners and times (for git, rsync, tar).",
        default=False,
    )
    uid: Annotated[int, BeforeValidator(values.user_id)] = _option(
        NAMES,
        "USER",
        "Owner of what has no stored owner.",
        default_factory=os.geteuid,
        shown_default="who mounts",
    )
    gid: Annotated[int, BeforeValidator(values.group_id)] = _option(
        NAMES,
        "GROUP",
        "Group of what has no stored group.",
        default_factory=os.getegid,
        shown_default="who mounts",
    )
    file_mode: Mode | None = _option(
        NAMES,
        "MODE",
        "Mode of files without a stored one.",
        default=None,
        le=0o777,
        shown_default="0644",
    )
    dir_mode: Mode | None = _option(
        NAMES,
        "MODE",
        "Mode of directories without a stored one.",
        default=None,
        le=0o3777,
        shown_default="0755",
    )
    umask: Mode | None = _option(
        NAMES,
        "MODE",
        "Permission bits taken from both modes.",
        default=None,
        le=0o777,
        shown_default="0022 for the default modes",
    )
    trust_default_modes: Flag = _option(
        NAMES,
        "",
        "With --allow-other: let others use what was listed by the default modes, without asking"
        " the objects for their own.",
        default=False,
    )
    special_modes: Flag = _option(
        NAMES,
        "",
        "Show the set-user-ID, set-group-ID and sticky bits stored with files (root only).",
        default=False,
    )

    state_dir: AbsolutePath = _option(
        WRITING,
        "DIR",
        "Where data not yet uploaded is kept safe; made when its parent exists.",
        default_factory=lambda: host.default_state_dir(os.environ),
        shown_default="/var/lib/ossfs-py, or ~/.local/state/ossfs-py",
    )
    write_back: Flag = _option(
        WRITING,
        "",
        "Let close(2) and unlink(2) return once a journal on disk has them; the bucket follows.",
        default=False,
    )
    max_zeros_bytes: Size = _option(
        WRITING,
        "SIZE",
        "Bytes of a sparse file that nobody wrote: with more of them, close(2) fails before it "
        "sends them as zeros.",
        default=64 * units.GIB,
    )
    record_writer: Flag = _option(
        WRITING,
        "",
        "Store with each file who wrote it, on which machine and when, for everybody who may read"
        " the object ('info' and 'versions' show it).",
        default=False,
    )
    on_conflict: Literal["overwrite", "fail"] = _option(
        WRITING,
        "overwrite|fail",
        "What close(2) does when the object changed behind the writer.",
        default="overwrite",
    )
    storage_class: str | None = _option(
        WRITING,
        "NAME",
        "Storage class of new objects; changed ones keep theirs.",
        default=None,
        shown_default="the bucket's",
    )
    acl: (
        Literal[
            "keep",
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = _option(
        WRITING,
        "NAME",
        "Who may use the objects that are written: a canned ACL such as public-read, or 'keep' for "
        "what held before, which costs one more request for each object that is changed.",
        default=None,
        shown_default="the bucket's",
    )
    checksum: Literal["auto", "none", "crc32c", "md5"] = _option(
        WRITING,
        "auto|none|crc32c|md5",
        "Checksum sent along with uploads.",
        default="auto",
    )
    conditional_writes: Literal["auto", "on", "off"] = _option(
        WRITING,
        "auto|on|off",
        "Whether the store can refuse to overwrite; auto tries it out.",
        default="auto",
    )
    part_copy: Literal["auto", "on", "off"] = _option(
        WRITING,
        "auto|on|off",
        "Whether the store can copy parts of objects; auto tries it out.",
        default="auto",
    )

    memory_limit_bytes: Size = _option(
        LIMITS,
        "SIZE",
        "Budget for all data in memory.",
        default_factory=host.default_memory_limit,
        ge=host.MIN_MEMORY_BYTES,
        shown_default="1GiB, or a quarter of the memory if that is less",
    )
    concurrency: Count = _option(
        LIMITS, "COUNT", "Requests and connections at once.", default=32, ge=1, le=512
    )
    upload_limit_bytes: Size | None = _option(
        LIMITS,
        "SIZE",
        "Most bytes a second that the whole mount sends to the store.",
        default=None,
        ge=64 * units.KIB,
        shown_default="no limit",
    )
    download_limit_bytes: Size | None = _option(
        LIMITS,
        "SIZE",
        "Most bytes a second that the whole mount receives from the store.",
        default=None,
        ge=64 * units.KIB,
        shown_default="no limit",
    )
    bind: Annotated[tuple[str, ...], BeforeValidator(values.own_addresses)] = _option(
        LIMITS,
        "ADDRESS[,ADDRESS]",
        "Addresses of this machine that connections to the store come from, in turn.",
        default=(),
        shown_default="the system's choice",
    )
    connect_timeout_seconds: Duration = _option(
        LIMITS, "DURATION", "Longest wait for a connection.", default=5.0, gt=0
    )
    stall_timeout_seconds: Duration = _option(
        LIMITS,
        "DURATION",
        "A connection on which no byte arrives for this long is given up.",
        default=10.0,
        gt=0,
    )
    retry_budget_seconds: Duration = _option(
        LIMITS,
        "DURATION",
        "How long a failing request is tried again before a program sees an error.",
        default=90.0,
    )

    read_only: Flag = _option(MOUNT, "", "Refuse every change.", default=False)
    at_ns: Moment | None = _option(
        MOUNT,
        "TIME",
        "Mount the bucket, which must keep versions, read-only as it was then: a time such as"
        " 2026-11-20T10:00Z, or how long ago (3d).",
        default=None,
        shown_default="as it is",
    )
    protect: Annotated[
        tuple[Literal["delete", "overwrite", "rename"], ...], BeforeValidator(values.words)
    ] = _option(
        MOUNT,
        "CHANGE[,CHANGE]",
        "Changes of what is stored that are refused with EPERM: delete, overwrite, rename. With all"
        " three of them a mount adds files and does nothing else.",
        default=(),
        shown_default="none",
    )
    allow_other: Flag = _option(MOUNT, "", "Let other users see the mount.", default=False)
    nonempty: Flag = _option(MOUNT, "", "Mount over a directory that is not empty.", default=False)
    readahead_bytes: Size = _option(
        MOUNT,
        "SIZE",
        "How far the kernel reads ahead.",
        default=units.MIB,
        ge=128 * units.KIB,
        le=16 * units.MIB,
    )
    kernel_options: tuple[Literal["noexec", "nosuid", "nodev", "noatime"], ...] = Field(
        default=(), description="Restrictions from -o that the kernel enforces."
    )

    foreground: Flag = _option(LOGS, "", "Stay attached and log to standard error.", default=False)
    log_level: Annotated[LogLevels, BeforeValidator(parse_levels)] = _option(
        LOGS,
        "LEVEL[,AREA=LEVEL]",
        "Least severe messages shown (debug, info, warning, error), for all or for one area"
        f" ({', '.join(AREAS)}).",
        default=LogLevels(),
    )
    log_file: AbsolutePath | None = _option(
        LOGS,
        "FILE",
        "Log file; reopened at SIGHUP.",
        default=None,
        shown_default="syslog, or ossfs-py.log in the state directory",
    )
    log_format: Literal["text", "json"] = _option(
        LOGS, "text|json", "Lines for people, or one JSON object a line.", default="text"
    )
    log_file_size_bytes: Size | None = _option(
        LOGS,
        "SIZE",
        "Begin a new log file at this size and keep three old ones.",
        default=None,
        ge=64 * units.KIB,
        shown_default="left to logrotate",
    )
    access_log: AbsolutePath | None = _option(
        LOGS,
        "FILE",
        "Write a line of JSON here for each call a program makes.",
        default=None,
    )
    metrics_address: Annotated[str, BeforeValidator(values.listen_address)] | None = _option(
        LOGS,
        "[HOST:]PORT",
        "Answer Prometheus at this address; a port alone is open to this machine only.",
        default=None,
    )

    @property
    def source(self) -> str:
        """``bucket`` or ``bucket/prefix``, as mount tables and messages show it."""
        return f"{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def effective_file_mode(self) -> int:
        """Permission bits of files without a stored mode, the umask applied."""
        return _masked(self.file_mode, 0o666, self.umask)

    @property
    def effective_dir_mode(self) -> int:
        """Permission bits of directories without a stored mode, the umask applied."""
        return _masked(self.dir_mode, 0o777, self.umask)

    @model_validator(mode="before")
    @classmethod
    def _nobody_changes_the_past(cls, values: dict[str, object]) -> dict[str, object]:
        if values.get("at_ns") is None:
            return values
        return {**values, "read_only": True}

    @model_validator(mode="after")
    def _refuse_impossible_combinations(self) -> Self:
        conflicts = [c for rule in CONFLICT_RULES for c in rule(self)]
        if conflicts:
            raise PydanticCustomError(
                CONFLICT,
                "impossible combination of {names}",
                {
                    "conflicts": conflicts,
                    "names": "; ".join(" and ".join(fields) for fields, _ in conflicts),
                },
            )
        return self


def _masked(mode: int | None, default: int, umask: int | None) -> int:
    if mode is None:
        return default & ~(0o022 if umask is None else umask)
    return mode & ~(umask or 0)


def option_name(field: str) -> str:
    """How people write a field: ``cache_size_bytes`` is ``cache-size``."""
    for unit in ("_bytes", "_seconds", "_ns"):
        field = field.removesuffix(unit)
    return field.replace("_", "-")


def option_extra(field: str) -> Mapping[str, str]:
    """Help group, placeholder and shown default of an option."""
    extra = Settings.model_fields[field].json_schema_extra
    return extra if isinstance(extra, dict) else {}  # type: ignore[return-value]
