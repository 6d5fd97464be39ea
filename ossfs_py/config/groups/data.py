"""The data path, its directories, and what the mount fetches in advance."""

import os
from typing import Annotated, Literal

from ossfs_py.config import machine as host
from ossfs_py.config import units, values
from ossfs_py.config.groups.option import DATA, AbsolutePath, Duration, Flag, Size, option
from ossfs_py.config.model import SettingsModel


class DataSettings(SettingsModel):
    """Help group "Data path"."""

    data_path: Literal["temp", "cache", "direct"] = option(
        DATA,
        "temp|cache|direct",
        "Where bytes are kept: temporary files, a persistent disk cache, or memory only.",
        default="temp",
    )
    temp_dir: AbsolutePath = option(
        DATA,
        "DIR",
        "Existing directory for temporary files.",
        default_factory=lambda: host.default_temp_dir(os.environ),
        shown_default="$TMPDIR or /var/tmp",
    )
    cache_dir: AbsolutePath = option(
        DATA,
        "DIR",
        "Directory of the disk cache; created if its parent exists.",
        default_factory=lambda: host.default_cache_dir(os.environ),
        shown_default="/var/cache/ossfs-py, or ~/.cache/ossfs-py",
    )
    cache_size_bytes: Size | None = option(
        DATA,
        "SIZE",
        "Maximum size of the disk cache.",
        default=None,
        ge=units.MIB,
        shown_default="what --min-free leaves",
    )
    min_free_bytes: Size | None = option(
        DATA,
        "SIZE",
        "Space on the local disk that cache, temporary files and unsaved data leave free.",
        default=None,
        shown_default="1GiB, or a tenth of a smaller disk",
    )
    cache_writes: Flag = option(
        DATA, "", "Add written files to the disk cache and the shared cache.", default=True
    )
    block_size_bytes: Size = option(
        DATA,
        "SIZE",
        "Size of a block, the unit of download; a power of two.",
        default=8 * units.MIB,
        ge=64 * units.KIB,
        le=64 * units.MIB,
    )
    shared_cache: Annotated[str, values.shared_cache_nodes] | None = option(
        DATA,
        "NODES",
        "Share downloaded blocks between machines through these memcached nodes: "
        "HOST:PORT,HOST:PORT..., one NAME:PORT whose addresses are the nodes, or file:PATH with "
        "one node on each line.",
        default=None,
    )
    shared_cache_secret: AbsolutePath | None = option(
        DATA,
        "FILE",
        "File with the secret of all machines that share blocks, so that nobody else can plant "
        "blocks; only you may be able to read it.",
        default=None,
    )
    shared_cache_timeout_seconds: Duration = option(
        DATA,
        "DURATION",
        "Skip a node of the shared cache for a while if it does not answer in this time.",
        default=0.08,
        gt=0,
    )
    model_hints: Flag = option(
        DATA,
        "",
        "Use the content of model files for read-ahead: tensor bounds, zip directories, the next "
        "shard.",
        default=True,
    )
    small_file_prefetch: Flag = option(
        DATA,
        "",
        "Fetch the next small files ahead when a program reads a directory file by file.",
        default=True,
    )
