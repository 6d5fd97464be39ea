"""One model on N nodes at once, with and without a shared cache.

``python -m tests.bench.nodes [--nodes 1,2,4,8] [--size-mib 1024] [--shards 1] [--store-mbit 1000]
[--node-mbit 10000] [--data-path direct] [--load-file] [--failing] [--warm-up] [--one-host]
[--https] [--check] [--repeat 1]`` (as root) makes network namespaces, one for the store and one
for each node, with addresses and link speeds of their own (tc), joined by a bridge in a namespace
of its own, so that nothing of this machine's network changes. In each node's namespace run a
memcached and a mount; all mounts read the whole model at once, and every byte is checked.
``--load-file`` lets safetensors read it.
``--failing`` adds a cold start in the middle of which one memcached is killed and one is frozen,
``--warm-up`` one where all nodes run ``ossfs-py warmup --shared`` before they read. ``--one-host``
puts all mounts, and one memcached, on one node. With ``--https`` the store speaks TLS, as clouds
do. ``--check`` ends with exit code 1 if a promise of the shared cache (``broken_promises``) was not
kept: give it a link to the store that is slower than this machine's processors, or it is these that
are measured: ``--nodes 1,8 --shared-only --failing --check --size-mib 512 --store-mbit 160``. CPU
seconds are judged with ``--nodes 4 --one-host --https --check``. ``--repeat`` runs everything so
many times in turn.

It prints a table, writes ``bench-results/nodes-<time>.json`` and draws it beside it. Bytes are
exact; seconds are those of one machine that plays all of them, whose load is told.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash
from rich.console import Console
from rich.table import Table

from ossfs_py.control.client import ControlClient, mount_of
from tests.support.mounting import Mount, Option
from tests.support.tls_front import make_certificate

MIB = 1024**2
RESULTS = Path("bench-results")
BUCKET = "models"
ALONE, COLD, AGAIN, FAILING = "alone", "shared, cold", "shared, again", "shared, cold, failing"
WARMING, WARMED = "shared, warming up", "shared, warmed"
STORE_ADDRESS, STORE_PORT = "10.213.0.1", 9000
_READY_SECONDS = 30.0
_READ_SECONDS = 500.0

_MOST_SENT = 1.05
"""Times the model that the store sends to all nodes together."""
_MOST_SLOWER = 1.3
"""The slowest of all nodes against one alone."""
_MOST_SLOWER_FAILING = 1.25
_MOST_AGAIN = 1 / 8
"""With a node killed and a node frozen in the middle: the time, and the part of the model that the
store sends again."""
_MOST_CPU = 0.8
"""Of the daemons, for bytes from a memcached of the same host against those from the store."""

READER = """
import os, sys, time, xxhash
paths = sys.argv[1:]
buffer = memoryview(bytearray(1 << 20))
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
digest = xxhash.xxh3_128()
for path in paths:
    fd = os.open(path, os.O_RDONLY)
    done = 0
    while count := os.readv(fd, [buffer]):
        digest.update(buffer[:count])
        done += count
        if done % (64 << 20) == 0:  # this machine has one memory for all nodes
            os.posix_fadvise(fd, 0, done, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
print(time.monotonic() - began, digest.hexdigest(), flush=True)
"""

LOADER = """
import sys, time, xxhash
from safetensors.numpy import load_file
paths = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
digest = xxhash.xxh3_128()
for path in paths:
    tensors = load_file(path)
    for name in sorted(tensors):
        digest.update(tensors[name])
    del tensors
print(time.monotonic() - began, digest.hexdigest(), flush=True)
"""
_TENSOR_MIB = 32


@dataclass(frozen=True)
class Run:
    """One start of all nodes. Bytes are whole runs', over all nodes unless said otherwise."""

    nodes: int
    what: str
    fastest_seconds: float
    slowest_seconds: float
    store_bytes: int
    most_received_by_a_node: int
    most_sent_by_a_node: int
    daemon_cpu_seconds: float
    cache_cpu_seconds: float
    load: float
    blocks: dict[str, int]
    """What became of blocks, over all mounts; see the metric ossfs_shared_cache_blocks."""


class Network:
    """Namespaces joined by a bridge; gone with the process that made them, or with ``close``."""

    def __init__(self, nodes: int, store_mbit: float, node_mbit: float) -> None:
        self._names: list[str] = []
        self._prefix = f"ossfs{os.getpid()}-"
        try:
            self._add("hub")
            _run("ip", "-n", self.name("hub"), "link", "add", "br0", "type", "bridge")
            _run("ip", "-n", self.name("hub"), "link", "set", "br0", "up")
            self._join("store", STORE_ADDRESS, store_mbit)
            for number in range(nodes):
                self._join(f"node{number}", self.address(number), node_mbit)
        except BaseException:
            self.close()
            raise

    def name(self, who: str) -> str:
        """The namespace of ``hub``, ``store`` or ``node0``…"""
        return self._prefix + who

    @staticmethod
    def address(number: int) -> str:
        """The address of a node."""
        return f"10.213.0.{number + 2}"

    def inside(self, who: str) -> list[str]:
        """What is put before a command to run it there; mounts stay visible everywhere."""
        return ["nsenter", f"--net=/run/netns/{self.name(who)}"]

    def carried(self, who: str) -> tuple[int, int]:
        """Bytes that its link has received and sent."""
        told = json.loads(
            subprocess.check_output(
                ["ip", "-n", self.name(who), "-s", "-j", "link", "show", "eth0"]
            )
        )
        counts = told[0]["stats64"]
        return counts["rx"]["bytes"], counts["tx"]["bytes"]

    def close(self) -> None:
        """Remove everything."""
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def _add(self, who: str) -> None:
        _run("ip", "netns", "add", self.name(who))
        self._names.append(self.name(who))
        _run("ip", "-n", self.name(who), "link", "set", "lo", "up")

    def _join(self, who: str, address: str, mbit: float) -> None:
        self._add(who)
        hub, own, port = self.name("hub"), self.name(who), f"p-{who}"
        _run(
            *("ip", "-n", hub, "link", "add", port, "type", "veth"),
            *("peer", "name", "eth0", "netns", own),
        )
        _run("ip", "-n", hub, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", own, "address", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", own, "link", "set", "eth0", "up")
        burst = max(1_000_000, int(mbit * 1e6 / 8 * 0.004))
        for place, device in ((own, "eth0"), (hub, port)):
            _run(
                *("tc", "-n", place, "qdisc", "add", "dev", device, "root", "tbf"),
                *("rate", f"{mbit}mbit", "burst", str(burst), "latency", "50ms"),
            )


class NodeMount(Mount):
    """A mount in the network of one node."""

    network_words: list[str]

    @property
    def arguments(self) -> list[str]:
        """The command line, behind the words that lead into the node's network."""
        return [*self.network_words, *super().arguments]


def main() -> int:
    """Measure and print."""
    options = _options()
    # Ended from outside it takes its network down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=140)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="ossfs-py-nodes.") as name:
        scratch = Path(name)
        directory = scratch / "store" / BUCKET
        make = _safetensors if options.load_file else _model
        keys, digest = make(directory, options.size_mib, options.shards)
        kinds = [ALONE, COLD, AGAIN][options.shared_only :]
        kinds += [FAILING] if options.failing else []
        kinds += [WARMING, WARMED] if options.warm_up else []
        for nodes in options.nodes:
            with _laboratory(nodes, options, scratch) as laboratory:
                for what in kinds * options.repeat:
                    if what in (COLD, FAILING, WARMING):
                        laboratory.start_caches()
                    runs.append(laboratory.run(what, keys, digest))
                    console.print(_line(runs[-1]))
    console.print(_table(runs, options))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"nodes-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.json"
    told = {"options": vars(options), "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(told, indent=1))
    _draw(runs, options.size_mib, path.with_suffix(".png"))
    console.print(f"written: {path}")
    broken = broken_promises(runs, options.size_mib * MIB) if options.check else []
    if options.check and options.one_host:
        broken += broken_promises_of_one_host(runs)
    for text in broken:
        console.print(f"broken: {text}")
    return 1 if broken else 0


def broken_promises(runs: list[Run], size: int) -> list[str]:
    """What the runs of a model of ``size`` bytes say against the shared cache, if anything."""
    broken = []

    def at_most(run: Run, what: str, value: float, limit: float) -> None:
        if value > limit:
            broken.append(f"{run.nodes} nodes, {run.what}: {what} {value:.2f}, not {limit:.2f}")

    cold = {run.nodes: run for run in runs if run.what == COLD}
    for run in runs:
        sent = run.store_bytes / size
        if run.what == COLD:
            at_most(run, "times the model that the store sent", sent, _MOST_SENT)
            if 1 in cold:
                slower = run.slowest_seconds / cold[1].slowest_seconds
                at_most(run, "times the time of one node", slower, _MOST_SLOWER)
        elif run.what in (AGAIN, WARMED):
            at_most(run, "times the model that the store sent", sent, 0.0)
        elif run.what == FAILING and run.nodes in cold:
            at_most(run, "times the model that the store sent", sent, 1 + _MOST_AGAIN)
            slower = run.slowest_seconds / cold[run.nodes].slowest_seconds
            at_most(run, "times the time without failures", slower, _MOST_SLOWER_FAILING)
    return broken


def broken_promises_of_one_host(runs: list[Run]) -> list[str]:
    """What the runs of mounts that share one memcached on their own host say against it."""
    broken = []
    for nodes in sorted({run.nodes for run in runs}):
        mine = [run for run in runs if run.nodes == nodes]
        alone = [run.daemon_cpu_seconds for run in mine if run.what == ALONE]
        again = [run.daemon_cpu_seconds for run in mine if run.what == AGAIN]
        if not (alone and again):
            continue
        share = statistics.median(again) / statistics.median(alone)
        if share > _MOST_CPU:
            broken.append(f"{nodes} mounts: {share:.2f} of the CPU seconds, not {_MOST_CPU:.2f}")
    return broken


class Laboratory:
    """The store and the nodes of one number of nodes."""

    def __init__(
        self, nodes: int, options: argparse.Namespace, scratch: Path, ends: contextlib.ExitStack
    ) -> None:
        self._nodes = nodes
        self._options = options
        self._scratch = scratch
        self._ends = ends
        self._cache_nodes = 1 if options.one_host else nodes
        self._caches: list[subprocess.Popen[bytes]] = []
        self._network = Network(nodes, options.store_mbit, options.node_mbit)
        ends.callback(self._network.close)
        self._certificate: Path | None = None
        words: tuple[object, ...] = ()
        if options.https:
            self._certificate, key = make_certificate(scratch, "store", STORE_ADDRESS)
            words = ("--certificate", self._certificate, "--key", key)
        self._endpoint = f"http{'s' if options.https else ''}://{STORE_ADDRESS}:{STORE_PORT}"
        self._start(
            "store",
            *(sys.executable, "-m", "tests.support.shaped_store", "--root", scratch / "store"),
            *("--host", STORE_ADDRESS, "--port", STORE_PORT),
            *("--ttfb-ms", options.ttfb_ms, "--mbps", options.mbps, *words),
        )
        self._until_served()

    def start_caches(self) -> None:
        """An empty memcached on each node, with room for its share and half as much again."""
        while self._caches:
            cache = self._caches.pop()
            cache.kill()
            cache.wait()
        memory = max(64, int(self._options.size_mib / self._cache_nodes * 1.5) + 64)
        for number in range(self._cache_nodes):
            address = self._network.address(number)
            self._caches.append(
                self._start(
                    f"node{number}",
                    *("memcached", "-u", "nobody", "-t", "2", "-l", address),
                    *("-m", memory, "-I", "4m", "-c", "4096"),
                )
            )

    def run(self, what: str, keys: list[str], digest: str) -> Run:
        """Fresh mounts on all nodes read everything at once."""
        shared = what != ALONE
        with contextlib.ExitStack() as ends:
            mounts = [ends.enter_context(self._mount(n, shared=shared)) for n in range(self._nodes)]
            time.sleep(2.0 if shared else 0.0)  # nodes are looked for every second
            self._ask("POST", "/__stats")
            before = [self._network.carried(f"node{n}") for n in range(self._nodes)]
            cpu = [_cpu_seconds(process.pid) for process in self._caches]
            daemon_cpu = [_cpu_seconds(mount.pid) for mount in mounts]
            if what == WARMING:
                seconds = _warm_up(mounts, self._options.size_mib * MIB)
            else:
                seconds = self._read(what, mounts, keys, digest)
            served = json.loads(self._ask("GET", "/__stats"))["bytes_out"]
            after = [self._network.carried(f"node{n}") for n in range(self._nodes)]
            moved = [
                (got - had, sent - gave)
                for (had, gave), (got, sent) in zip(before, after, strict=True)
            ]
            return Run(
                nodes=self._nodes,
                what=what,
                fastest_seconds=min(seconds),
                slowest_seconds=max(seconds),
                store_bytes=served,
                most_received_by_a_node=max(got for got, _ in moved),
                most_sent_by_a_node=max(sent for _, sent in moved),
                daemon_cpu_seconds=sum(_cpu_seconds(mount.pid) for mount in mounts)
                - sum(daemon_cpu),
                cache_cpu_seconds=sum(_cpu_seconds(one.pid) for one in self._caches) - sum(cpu),
                load=os.getloadavg()[0],
                blocks=_blocks(mounts) if shared else {},
            )

    def _read(
        self, what: str, mounts: list[NodeMount], keys: list[str], digest: str
    ) -> list[float]:
        """Let all nodes read the model at once; the seconds that each took."""
        code = LOADER if self._options.load_file else READER
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", code, *(str(mount.path / key) for key in keys)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for mount in mounts
        ]
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("go\n")
            reader.stdin.flush()
        if what == FAILING:
            self._fail_in_the_middle()
        said = [reader.communicate(timeout=_READ_SECONDS)[0].split() for reader in readers]
        wrong = [words for words in said if words[1:] != [digest]]
        if wrong:
            raise SystemExit(f"{what}: {len(wrong)} of {self._nodes} nodes read wrong bytes")
        return [float(words[0]) for words in said]

    def _fail_in_the_middle(self) -> None:
        """Kill one memcached and freeze another when the store has sent half of the model."""
        half = self._options.size_mib * MIB // 2
        deadline = time.monotonic() + _READ_SECONDS
        while json.loads(self._ask("GET", "/__stats"))["bytes_out"] < half:
            if time.monotonic() > deadline:
                raise SystemExit("the store has not sent half of the model")
            time.sleep(0.1)
        for process, number in zip(self._caches, (signal.SIGKILL, signal.SIGSTOP), strict=False):
            process.send_signal(number)

    def _mount(self, number: int, *, shared: bool) -> NodeMount:
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        more: dict[str, Option] = {}
        if shared:
            addresses = ",".join(self._network.address(n) for n in range(self._cache_nodes))
            more = {"shared_cache": addresses, "shared_cache_timeout": self._options.timeout}
        if self._certificate is not None:
            more["ca_bundle"] = self._certificate
        mount = NodeMount(
            BUCKET,
            directory,
            endpoint=self._endpoint,
            environment={"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"},
            data_path=self._options.data_path,
            read_only=True,
            memory_limit="512MiB",
            **more,
        )
        mount.network_words = self._network.inside(
            "node0" if self._options.one_host else f"node{number}"
        )
        return mount

    def _start(self, who: str, *words: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *self._network.inside(who),
                *(str(word) for word in words),
            ]
        )
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)
        return process

    def _until_served(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self._ask("GET", "/__stats")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _ask(self, method: str, path: str) -> str:
        # From inside its namespace: nothing of this machine reaches it.
        code = (
            "import ssl, urllib.request as r, sys;"
            "asked = r.Request(sys.argv[2], method=sys.argv[1]);"
            "trust = ssl.create_default_context(cafile=sys.argv[3]) if sys.argv[3] else None;"
            "print(r.urlopen(asked, timeout=20, context=trust).read().decode())"
        )
        url, trusted = self._endpoint + path, str(self._certificate or "")
        words = [*self._network.inside("store"), sys.executable, "-c", code, method, url, trusted]
        return subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _laboratory(nodes: int, options: argparse.Namespace, scratch: Path) -> Iterator[Laboratory]:
    with contextlib.ExitStack() as ends:
        yield Laboratory(nodes, options, scratch, ends)


def _model(directory: Path, size_mib: int, shards: int) -> tuple[list[str], str]:
    """Files of a model that no two blocks of are alike; their names and the digest of all bytes."""
    directory.mkdir(parents=True)
    digest = xxhash.xxh3_128()
    block = bytearray(os.urandom(MIB))
    keys = []
    for shard in range(shards):
        keys.append(f"model-{shard + 1:05d}-of-{shards:05d}.safetensors")
        with (directory / keys[-1]).open("wb") as file:
            for number in range(size_mib // shards):
                block[:8] = (shard << 32 | number).to_bytes(8, "little")
                digest.update(block)
                file.write(block)
    return keys, digest.hexdigest()


def _safetensors(directory: Path, size_mib: int, shards: int) -> tuple[list[str], str]:
    """The same, as safetensors; the digest is that of all tensors."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir(parents=True)
    digest = xxhash.xxh3_128()
    block = np.frombuffer(bytearray(os.urandom(_TENSOR_MIB * MIB)), np.uint8)
    keys = []
    for shard in range(shards):
        keys.append(f"model-{shard + 1:05d}-of-{shards:05d}.safetensors")
        tensors = {}
        for number in range(size_mib // shards // _TENSOR_MIB):
            tensors[f"layer.{number:04d}"] = np.roll(block, 1 + shard * 1000 + number)
            digest.update(tensors[f"layer.{number:04d}"])
        save_file(tensors, directory / keys[-1])
    return keys, digest.hexdigest()


def _warm_up(mounts: list[NodeMount], size: int) -> list[float]:
    """Let all nodes warm up at once; the seconds that each took."""
    command = [sys.executable, "-m", "ossfs_py", "warmup", "--shared", "--json"]
    running = [
        subprocess.Popen([*command, str(mount.path)], stdout=subprocess.PIPE, text=True)
        for mount in mounts
    ]
    said = [json.loads(process.communicate(timeout=_READ_SECONDS)[0]) for process in running]
    wrong = [report for report in said if report["missing"] or report["bytes"] != size]
    if wrong:
        raise SystemExit(f"{len(wrong)} warm-ups have something missing: {wrong[0]}")
    return [report["seconds"] for report in said]


def _blocks(mounts: list[NodeMount]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for mount in mounts:
        with ControlClient.of(mount_of(mount.path)[0]) as client:
            family = client.call("stats")["metrics"]["ossfs_shared_cache_blocks"]
        for sample in family["samples"]:
            if sample["name"].endswith("_total"):
                total[sample["labels"]["outcome"]] += int(sample["value"])
    return dict(total)


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _line(run: Run) -> str:
    return (
        f"{run.nodes} nodes, {run.what}: slowest {run.slowest_seconds:.1f} s, "
        f"store sent {run.store_bytes / 1024**3:.3f} GiB {run.blocks or ''}"
    )


def _table(runs: list[Run], options: argparse.Namespace) -> Table:
    title = (
        f"{options.size_mib} MiB in {options.shards} files, store {options.store_mbit:g} Mbit/s, "
        f"nodes {options.node_mbit:g} Mbit/s, {options.data_path}"
    )
    table = Table(title=title)
    for heading in (
        *("nodes", "what", "fastest s", "slowest s", "store sent GiB"),
        *("a node received GiB", "a node sent GiB", "daemons CPU-s", "memcached CPU-s", "load"),
    ):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for run in runs:
        table.add_row(
            *(str(run.nodes), run.what, f"{run.fastest_seconds:.1f}", f"{run.slowest_seconds:.1f}"),
            f"{run.store_bytes / 1024**3:.3f}",
            f"{run.most_received_by_a_node / 1024**3:.2f}",
            f"{run.most_sent_by_a_node / 1024**3:.2f}",
            *(f"{run.daemon_cpu_seconds:.1f}", f"{run.cache_cpu_seconds:.1f}", f"{run.load:.0f}"),
        )
    return table


def _draw(runs: list[Run], size_mib: int, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for what in dict.fromkeys(run.what for run in runs):
        mine = [run for run in runs if run.what == what]
        nodes = [run.nodes for run in mine]
        left.plot(nodes, [run.slowest_seconds for run in mine], marker="o", label=what)
        sent = [run.store_bytes / (size_mib * MIB) for run in mine]
        right.plot(nodes, sent, marker="o", label=what)
    left.set(xlabel="nodes", ylabel="seconds of the slowest node", ylim=(0, None))
    right.set(xlabel="nodes", ylabel="times the model that the store sent", ylim=(0, None))
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nodes")
    parser.add_argument(
        "--nodes", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4, 8]
    )
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--shared-only", action="store_true", help="not without the shared cache")
    parser.add_argument("--load-file", action="store_true", help="safetensors reads the model")
    parser.add_argument("--failing", action="store_true", help="also with failing nodes")
    parser.add_argument("--warm-up", action="store_true", help="also a warm-up by all nodes")
    parser.add_argument("--one-host", action="store_true", help="all mounts on one node")
    parser.add_argument("--https", action="store_true", help="the store speaks TLS")
    parser.add_argument("--check", action="store_true", help="exit code 1 for a broken promise")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each kind, in turn")
    parser.add_argument("--timeout", default="2s", help="--shared-cache-timeout of the mounts")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--store-mbit", type=float, default=1000.0)
    parser.add_argument("--node-mbit", type=float, default=10_000.0)
    parser.add_argument("--ttfb-ms", type=float, default=25.0)
    parser.add_argument("--mbps", type=float, default=90.0, help="of each connection to the store")
    parser.add_argument("--data-path", default="direct", choices=("direct", "temp", "cache"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
