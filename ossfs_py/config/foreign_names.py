"""Our names for options of ossfs, ossfs 2, s3fs, mountpoint-s3, goofys and rclone.

This is the one table. The error for an unknown option uses it, and so does the documentation. Names
that mean the same here (``uid``, ``storage_class``, ``metadata_ttl``, …) are not in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OSSFS, OSSFS2, S3FS = "ossfs", "ossfs 2", "s3fs"
MOUNTPOINT, GOOFYS, RCLONE = "mountpoint-s3", "goofys", "rclone"


@dataclass(frozen=True, slots=True)
class ForeignName:
    """An option of other programs and what stands for it here."""

    programs: tuple[str, ...]
    here: str = ""
    """Our option, with underscores and perhaps a value (``addressing=path``); several with a
    comma between them; empty: there is none."""
    note: str = ""
    """The difference, or why there is no counterpart: the rest of a sentence."""

    def told(self, *, as_flag: bool = False) -> str:
        """The end of a line that begins with the option's name, in -o or as a long flag."""
        answer = self.note
        if self.here:
            names = " ".join(self.flags()) if as_flag else self.here
            note = f" ({self.note})" if self.note else ""
            answer = f"here it is {names}{note}"
        return f"an option of {_listed(self.programs)}; {answer}"

    def options(self) -> list[str]:
        """Our options, each with its value if it has one here."""
        return self.here.split(",") if self.here else []

    def flags(self) -> list[str]:
        """Our options as long flags."""
        return [_as_flag(option) for option in self.options()]


def _listed(names: tuple[str, ...]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _as_flag(name: str) -> str:
    option, equals, value = name.partition("=")
    flag = option.replace("_", "-")
    return f"--no-{flag}" if value == "no" else f"--{flag}{equals}{value}"


_BOTH = (OSSFS, S3FS)
_MEGABYTES = "a size with its unit: 10240 there is 10GiB here"
_SECRETS = "secrets are read from files and variables only: see credentials_file"
_PARTS = "not needed here: the size of parts follows from the object's"
_AUTOMATIC = "not needed here: it is found out from the store"
_ALWAYS = "not needed here: it is always on"
_ROLE = "not needed here: the role of the instance or the pod is found automatically"
_LISTED = "not needed here: times come with the listing unless posix_metadata is set"
_AUTOMATIC_READAHEAD = "not needed here: how far is read ahead follows from how a program reads"
_NOTHING = "there is no counterpart here"

FOREIGN_NAMES: Mapping[str, ForeignName] = {
    # -- where the store is, and who we are
    "url": ForeignName(_BOTH, "endpoint", "what they call endpoint is region"),
    "host": ForeignName((S3FS,), "endpoint"),
    "endpoint_url": ForeignName((MOUNTPOINT,), "endpoint"),
    "oss_endpoint": ForeignName((OSSFS2,), "endpoint"),
    "oss_region": ForeignName((OSSFS2,), "region"),
    "oss_bucket": ForeignName((OSSFS2,), note="here the bucket is the first argument"),
    "oss_bucket_prefix": ForeignName((OSSFS2,), "prefix"),
    "servicepath": ForeignName((S3FS,), note=_NOTHING),
    "use_path_request_style": ForeignName(_BOTH, "addressing=path"),
    "force_path_style": ForeignName((MOUNTPOINT,), "addressing=path"),
    "subdomain": ForeignName((GOOFYS,), "addressing=virtual"),
    "dual_stack": ForeignName((MOUNTPOINT,), "endpoint", "name the dual-stack one"),
    "transfer_acceleration": ForeignName((MOUNTPOINT,), "endpoint", "name the accelerated one"),
    "passwd_file": ForeignName(_BOTH, "credentials_file"),
    "oss_access_key_id": ForeignName((OSSFS2,), note=_SECRETS),
    "oss_access_key_secret": ForeignName((OSSFS2,), note=_SECRETS),
    "credential_process": ForeignName((OSSFS2,), "profile", "with credential_process in it"),
    "public_bucket": ForeignName(_BOTH, "anonymous"),
    "no_sign_request": ForeignName((MOUNTPOINT,), "anonymous"),
    "iam_role": ForeignName((S3FS,), note=_ROLE),
    "ram_role": ForeignName((OSSFS, OSSFS2), note=_ROLE),
    "ecs": ForeignName((S3FS,), note=_ROLE),
    "imdsv1only": ForeignName((S3FS,), note=_ROLE),
    "use_session_token": ForeignName(
        _BOTH, note="not needed here: a session token is used if there is one"
    ),
    "no_check_certificate": ForeignName((*_BOTH, RCLONE), "verify_tls=no"),
    "ssl_verify_hostname": ForeignName(_BOTH, "verify_tls=no", "which checks no certificate"),
    "sigv1": ForeignName((OSSFS,), note="requests are signed with version 4 here"),
    "sigv2": ForeignName((S3FS,), note="requests are signed with version 4 here"),
    "sigv4": ForeignName((S3FS,), note=_ALWAYS),
    "proxy": ForeignName((S3FS,), note="set the variable https_proxy or http_proxy instead"),
    # -- caches
    "use_cache": ForeignName(_BOTH, "data_path=cache,cache_dir=DIR"),
    "cache": ForeignName((MOUNTPOINT, GOOFYS), "data_path=cache,cache_dir=DIR"),
    "direct_read": ForeignName((OSSFS,), "data_path=direct"),
    "direct_read_chunk_size": ForeignName((OSSFS,), "block_size", "a power of two, with its unit"),
    "direct_read_prefetch_chunks": ForeignName((OSSFS,), note=_AUTOMATIC_READAHEAD),
    "direct_read_backward_chunks": ForeignName((OSSFS,), note=_AUTOMATIC_READAHEAD),
    "direct_read_prefetch_thread": ForeignName((OSSFS,), "concurrency"),
    "direct_read_prefetch_limit": ForeignName((OSSFS,), "memory_limit", _MEGABYTES),
    "direct_read_local_file_cache_size_mb": ForeignName((OSSFS,), "data_path=cache"),
    "tmpdir": ForeignName(_BOTH, "temp_dir"),
    "max_cache_size": ForeignName((MOUNTPOINT,), "cache_size", _MEGABYTES),
    "ensure_diskfree": ForeignName(_BOTH, "min_free", _MEGABYTES),
    "free_space_ratio": ForeignName(_BOTH, "min_free", "a size, not a percentage"),
    "del_cache": ForeignName(
        _BOTH, note="here temporary files are always removed, and a cache is kept"
    ),
    "check_cache_dir_exist": ForeignName((S3FS,), note=_ALWAYS),
    "cache_block_size": ForeignName((MOUNTPOINT,), "block_size", "a size with its unit"),
    "read_part_size": ForeignName((MOUNTPOINT,), "block_size", "a power of two"),
    "part_size": ForeignName((MOUNTPOINT,), "block_size", "of downloads; uploads need none"),
    "write_part_size": ForeignName((MOUNTPOINT,), note=_PARTS),
    "max_memory_target": ForeignName((MOUNTPOINT,), "memory_limit", _MEGABYTES),
    "total_mem_limit": ForeignName((OSSFS2,), "memory_limit"),
    "stat_cache_expire": ForeignName(_BOTH, "metadata_ttl"),
    "stat_cache_interval_expire": ForeignName(_BOTH, "metadata_ttl"),
    "stat_cache_ttl": ForeignName((GOOFYS,), "metadata_ttl"),
    "type_cache_ttl": ForeignName((GOOFYS,), "metadata_ttl"),
    "attr_timeout": ForeignName((OSSFS2, RCLONE), "metadata_ttl"),
    "negative_metadata_ttl": ForeignName((MOUNTPOINT,), "negative_ttl"),
    "negative_timeout": ForeignName((OSSFS2,), "negative_ttl"),
    "enable_noobj_cache": ForeignName(_BOTH, "negative_ttl", "for how long"),
    "disable_noobj_cache": ForeignName((S3FS,), "negative_ttl=0"),
    "max_stat_cache_size": ForeignName(_BOTH, note="not needed here: unused entries are dropped"),
    "readdirplus": ForeignName((OSSFS2,), note=_ALWAYS),
    "readdir_optimize": ForeignName((OSSFS,), "posix_metadata=no", "the default"),
    "readdir_check_size": ForeignName(
        (OSSFS,), note="not needed here: empty objects are asked for, as they may be links"
    ),
    "symlink_in_meta": ForeignName((OSSFS,), note=_ALWAYS),
    "list_object_max_keys": ForeignName(_BOTH, note=_AUTOMATIC),
    "listobjectsv2": ForeignName((S3FS,), note=_ALWAYS),
    # -- requests
    "parallel_count": ForeignName(_BOTH, "concurrency"),
    "multireq_max": ForeignName(_BOTH, "concurrency"),
    "max_thread_count": ForeignName((S3FS,), "concurrency"),
    "max_threads": ForeignName((MOUNTPOINT,), "concurrency"),
    "maximum_throughput_gbps": ForeignName(
        (MOUNTPOINT,), "download_limit", "bytes a second; not needed to be fast"
    ),
    "readwrite_timeout": ForeignName(_BOTH, "stall_timeout"),
    "http_timeout": ForeignName((GOOFYS,), "stall_timeout"),
    "retries": ForeignName(_BOTH, "retry_budget", "a duration, not a count"),
    "ipresolve": ForeignName((S3FS,), "bind", "an address of this machine, of the kind wanted"),
    "nodnscache": ForeignName(_BOTH, note="names are resolved for each connection here"),
    "nosscache": ForeignName(_BOTH, note=_NOTHING),
    "cipher_suites": ForeignName((S3FS,), note="here the system's OpenSSL decides"),
    # -- uploads
    "multipart_size": ForeignName(_BOTH, note=_PARTS),
    "multipart_threshold": ForeignName(_BOTH, note=_PARTS),
    "multipart_copy_size": ForeignName(_BOTH, note=_PARTS),
    "singlepart_copy_limit": ForeignName(_BOTH, note=_PARTS),
    "nomultipart": ForeignName(_BOTH, note=_PARTS),
    "max_dirty_data": ForeignName(_BOTH, note="full parts are uploaded while a file is written"),
    "streamupload": ForeignName((S3FS,), note=_ALWAYS),
    "incremental_upload": ForeignName((MOUNTPOINT,), note=_ALWAYS),
    "nomixupload": ForeignName((S3FS,), "part_copy=off"),
    "nocopyapi": ForeignName(_BOTH, "part_copy=off", "renaming needs copies all the same"),
    "norenameapi": ForeignName(_BOTH, note="renaming is a copy on the server here"),
    "enable_content_md5": ForeignName(_BOTH, "checksum=md5"),
    "upload_checksums": ForeignName((MOUNTPOINT,), "checksum"),
    "enable_unsigned_payload": ForeignName((S3FS,), note=_ALWAYS),
    "use_rrs": ForeignName(_BOTH, "storage_class=REDUCED_REDUNDANCY"),
    "use_sse": ForeignName(_BOTH, "sse", "AES256 or aws:kms; for your own key: sse_key_file"),
    "load_sse_c": ForeignName(_BOTH, "sse_key_file"),
    "sse_c": ForeignName((GOOFYS,), "sse_key_file", "a file with the key"),
    "sse_kms": ForeignName((GOOFYS,), "sse_kms_key_id", "with sse=aws:kms"),
    "default_acl": ForeignName(_BOTH, "acl"),
    "requester_pays": ForeignName((S3FS, MOUNTPOINT, GOOFYS), "request_payer"),
    "mime": ForeignName((S3FS,), note="here the Content-Type of a new file follows from its name"),
    "use_content_type": ForeignName((GOOFYS,), note=_ALWAYS),
    # -- names, modes and rights
    "mp_umask": ForeignName(_BOTH, "dir_mode"),
    "allow_delete": ForeignName((MOUNTPOINT,), note="allowed here unless it is mounted read_only"),
    "allow_overwrite": ForeignName(
        (MOUNTPOINT,), note="allowed here unless it is mounted read_only"
    ),
    "allow_root": ForeignName((MOUNTPOINT,), "allow_other"),
    "auto_unmount": ForeignName((MOUNTPOINT,), note="a mount ends with its daemon here"),
    "complement_stat": ForeignName((S3FS,), "file_mode,dir_mode"),
    "compat_dir": ForeignName((S3FS,), note="directories without a marker are always seen here"),
    "notsup_compat_dir": ForeignName(_BOTH, note=_ALWAYS),
    "no_implicit_dir": ForeignName((GOOFYS,), note="directories are always seen here"),
    "cheap": ForeignName((GOOFYS,), "metadata_ttl", "the longer, the fewer requests"),
    "use_xattr": ForeignName(_BOTH, note="see getfattr -m user.ossfs for what is shown here"),
    "update_parent_dir_stat": ForeignName((S3FS,), note=_NOTHING),
    # -- rclone mount, whose backend options begin with s3_
    "s3_endpoint": ForeignName((RCLONE,), "endpoint"),
    "s3_region": ForeignName((RCLONE,), "region"),
    "s3_provider": ForeignName((RCLONE,), note=_AUTOMATIC),
    "s3_profile": ForeignName((RCLONE,), "profile"),
    "s3_env_auth": ForeignName((RCLONE,), note=_ALWAYS),
    "s3_shared_credentials_file": ForeignName(
        (RCLONE,), note="set the variable AWS_SHARED_CREDENTIALS_FILE instead"
    ),
    "s3_access_key_id": ForeignName((RCLONE,), note=_SECRETS),
    "s3_secret_access_key": ForeignName((RCLONE,), note=_SECRETS),
    "s3_force_path_style": ForeignName((RCLONE,), "addressing=path", "false there is virtual"),
    "s3_requester_pays": ForeignName((RCLONE,), "request_payer"),
    "s3_storage_class": ForeignName((RCLONE,), "storage_class"),
    "s3_acl": ForeignName((RCLONE,), "acl"),
    "s3_server_side_encryption": ForeignName((RCLONE,), "sse"),
    "s3_sse_kms_key_id": ForeignName((RCLONE,), "sse_kms_key_id", "with sse=aws:kms"),
    "s3_sse_customer_key": ForeignName((RCLONE,), "sse_key_file", "a file with the key"),
    "s3_chunk_size": ForeignName((RCLONE,), note=_PARTS),
    "s3_upload_cutoff": ForeignName((RCLONE,), note=_PARTS),
    "s3_upload_concurrency": ForeignName((RCLONE,), "concurrency"),
    "s3_version_at": ForeignName((RCLONE,), "at"),
    "ca_cert": ForeignName((RCLONE,), "ca_bundle"),
    "vfs_cache_mode": ForeignName(
        (RCLONE,), "data_path", "full is cache; off, minimal and writes are temp or direct"
    ),
    "vfs_cache_max_size": ForeignName((RCLONE,), "cache_size"),
    "vfs_cache_min_free_space": ForeignName((RCLONE,), "min_free"),
    "vfs_cache_max_age": ForeignName((RCLONE,), note="here the cache is limited by size alone"),
    "vfs_read_chunk_size": ForeignName((RCLONE,), "block_size", "a power of two"),
    "vfs_read_chunk_streams": ForeignName((RCLONE,), "concurrency", "of the whole mount"),
    "vfs_read_ahead": ForeignName((RCLONE,), note=_AUTOMATIC_READAHEAD),
    "buffer_size": ForeignName((RCLONE,), "memory_limit", "of the whole mount"),
    "vfs_write_back": ForeignName((RCLONE,), "write_back", "a flag, not a duration"),
    "dir_cache_time": ForeignName((RCLONE,), "metadata_ttl"),
    "poll_interval": ForeignName((RCLONE,), "metadata_ttl", "buckets report no changes"),
    "bwlimit": ForeignName((RCLONE,), "download_limit,upload_limit"),
    "transfers": ForeignName((RCLONE,), "concurrency"),
    "contimeout": ForeignName((RCLONE,), "connect_timeout"),
    "timeout": ForeignName((RCLONE,), "stall_timeout"),
    "low_level_retries": ForeignName((RCLONE,), "retry_budget", "a duration, not a count"),
    "allow_non_empty": ForeignName((RCLONE,), "nonempty"),
    "file_perms": ForeignName((RCLONE,), "file_mode"),
    "dir_perms": ForeignName((RCLONE,), "dir_mode"),
    "links": ForeignName((RCLONE,), note=_ALWAYS),
    "vfs_links": ForeignName((RCLONE,), note=_ALWAYS),
    "no_modtime": ForeignName((RCLONE,), note=_LISTED),
    "use_server_modtime": ForeignName((RCLONE,), note=_LISTED),
    "daemon": ForeignName((RCLONE,), note="not needed here: it is the default, see foreground"),
    "rc": ForeignName((RCLONE,), "metrics_address"),
    "rc_addr": ForeignName((RCLONE,), "metrics_address"),
    "vv": ForeignName((RCLONE,), "log_level=debug"),
    # -- logs and metrics
    "dbglevel": ForeignName(_BOTH, "log_level"),
    "curldbg": ForeignName(_BOTH, "log_level=store=debug"),
    "debug_s3": ForeignName((GOOFYS,), "log_level=store=debug"),
    "debug_fuse": ForeignName((GOOFYS,), "log_level=fuse=debug"),
    "debug": ForeignName((MOUNTPOINT,), "log_level=debug"),
    "logfile": ForeignName(_BOTH, "log_file"),
    "log_directory": ForeignName((MOUNTPOINT,), "log_file", "a file, not a directory"),
    "log_dir": ForeignName((OSSFS2,), "log_file", "a file, not a directory"),
    "log_file_max_size": ForeignName((OSSFS2,), "log_file_size"),
    "log_file_max_count": ForeignName((OSSFS2,), "log_file_size", "three old ones are kept"),
    "log_metrics": ForeignName((MOUNTPOINT,), "metrics_address"),
}
"""Their name with underscores to what is said of it."""
