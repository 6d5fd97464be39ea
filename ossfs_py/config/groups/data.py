"""Where bytes live on this side, and what is fetched before it is asked for."""

import os
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from ossfs_py.config import machine as host
from ossfs_py.config import units, values
from ossfs_py.config.groups.option import DATA, AbsolutePath, Duration, Flag, Size, option


class DataSettings(BaseModel):
    """Help group "Data path"."""

    data_path: Literal["temp", "cache", "direct"] = option(
        DATA,
        "temp|cache|direct",
        "Where bytes live: temporary files, a lasting disk cache, or memory only.",
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
        "Directory of the cache data path; made when its parent exists.",
        default_factory=lambda: host.default_cache_dir(os.environ),
        shown_default="/var/cache/ossfs-py, or ~/.cache/ossfs-py",
    )
    cache_size_bytes: Size | None = option(
        DATA,
        "SIZE",
        "Most bytes the cache may hold.",
        default=None,
        ge=units.MIB,
        shown_default="what --min-free leaves",
    )
    min_free_bytes: Size | None = option(
        DATA,
        "SIZE",
        "Room on the local disk that cache, temporary files and data not yet uploaded leave to"
        " others.",
        default=None,
        shown_default="1GiB, or a tenth of a smaller disk",
    )
    cache_writes: Flag = option(
        DATA, "", "Let written files enter the disk cache and the shared one, too.", default=True
    )
    block_size_bytes: Size = option(
        DATA,
        "SIZE",
        "Unit of download, a power of two.",
        default=8 * units.MIB,
        ge=64 * units.KIB,
        le=64 * units.MIB,
    )
    shared_cache: Annotated[str, BeforeValidator(values.shared_cache_nodes)] | None = option(
        DATA,
        "NODES",
        "memcached nodes that several machines share blocks through: HOST:PORT,HOST:PORT..., one "
        "NAME:PORT whose addresses are the nodes, or file:PATH with a node a line.",
        default=None,
    )
    shared_cache_secret: AbsolutePath | None = option(
        DATA,
        "FILE",
        "Secret that all who share blocks have, so that nobody else on the network can plant any; "
        "nobody else may read the file.",
        default=None,
    )
    shared_cache_timeout_seconds: Duration = option(
        DATA,
        "DURATION",
        "A node of the shared cache that is silent for this long is left out for a while.",
        default=0.08,
        gt=0,
    )
    model_hints: Flag = option(
        DATA,
        "",
        "Use what model files tell: tensor bounds, zip directories, the shard that comes next.",
        default=True,
    )
    small_file_prefetch: Flag = option(
        DATA,
        "",
        "Fetch the next small files of a directory that is read file after file.",
        default=True,
    )
