"""Loaders of libraries too large for the test environment; ``make loaders`` installs and runs them.

Each makes its files in a directory of its own and loads them as its documentation says. What they
read of a mount is kept in ``traces``, so that the suite knows it without them.
"""

import mmap
import os
import re
import sys
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, metadata
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

MIB = 1024**2

Loaded = Mapping[str, Any]


@dataclass(frozen=True)
class Library:
    """``make`` writes about ``mib`` MiB into a directory, ``load`` reads them from a copy of it.

    A trace keeps the reads of the largest file that matches ``reads``.
    """

    make: Callable[[Path, int], None]
    load: Callable[[Path], Loaded]
    reads: str
    needs: tuple[str, ...]

    @staticmethod
    def directory(name: str) -> str:
        """Where the files of the library of this name lie; also the name of its trace."""
        return "_".join(re.findall("[a-z0-9]+", name.lower()))


def arrays(mib: int, count: int = 24) -> dict[str, Any]:
    """Arrays of unequal sizes, ``mib`` MiB together, of numbers between 0.5 and 2."""
    generator = np.random.default_rng(5)
    weights = [1 + number % 5 for number in range(count)]
    sizes = [mib * MIB * weight // sum(weights) // 4096 * 1024 for weight in weights]
    return {
        f"w{number:02}": generator.integers(0x3F000000, 0x3FFFFFFF, size, np.int32).view(np.float32)
        for number, size in enumerate(sizes)
    }


def _torch_tensors(mib: int) -> dict[str, Any]:
    torch = import_module("torch")
    return {name: torch.from_numpy(array.reshape(-1, 256)) for name, array in arrays(mib).items()}


def _shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def make_shards(directory: Path, mib: int) -> None:
    save_file = import_module("safetensors.torch").save_file
    tensors = _torch_tensors(mib)
    names = sorted(tensors)
    for number in range(4):
        shard = {name: tensors[name] for name in names[number * 6 : number * 6 + 6]}
        save_file(shard, directory / f"model-{number + 1:05}-of-00004.safetensors")


# -- transformers, diffusers, tokenizers ---------------------------------------------------------


def make_transformer(directory: Path, mib: int) -> None:
    transformers = import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=mib * 64,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=64,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory, max_shard_size=f"{max(mib // 4, 1)}MB")


def load_transformer(directory: Path) -> Loaded:
    transformers = import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, low_cpu_mem_usage=True)
    return {name: tensor.clone().numpy() for name, tensor in model.state_dict().items()}


def make_diffuser(directory: Path, mib: int) -> None:
    diffusers = import_module("diffusers")
    wide = max(int(mib**0.5) * 8, 32) // 32 * 32
    model = diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(wide, 2 * wide),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D",) * 2,
    )
    model.save_pretrained(directory, safe_serialization=True)


def load_diffuser(directory: Path) -> Loaded:
    diffusers = import_module("diffusers")
    model = diffusers.UNet2DModel.from_pretrained(directory, use_safetensors=True)
    return {name: tensor.clone().numpy() for name, tensor in model.state_dict().items()}


def make_tokenizer(directory: Path, mib: int) -> None:
    tokenizers = import_module("tokenizers")
    words = {f"word{number:07}": number for number in range(mib * 20_000)}
    model = tokenizers.models.WordLevel(words, unk_token="word0000000")
    tokenizers.Tokenizer(model).save(str(directory / "tokenizer.json"))


def load_tokenizer(directory: Path) -> Loaded:
    tokenizers = import_module("tokenizers")
    loaded = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    words = loaded.get_vocab()
    return {"": np.array([words[word] for word in sorted(words)])}


# -- safetensors in other hands ------------------------------------------------------------------


def load_as_comfyui(directory: Path) -> Loaded:
    """All tensors by ``get_tensor`` first, copied when the model's modules take them."""
    safe_open, held = import_module("safetensors").safe_open, {}
    for path in _shards(directory):
        with safe_open(path, "pt", device="cpu") as file:
            held.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return {name: held[name].clone().numpy() for name in sorted(held, reverse=True)}


def load_as_vllm(directory: Path) -> Loaded:
    """``safetensors_weights_iterator``: lazily, each tensor copied as it comes."""
    safe_open, loaded = import_module("safetensors").safe_open, {}
    for path in _shards(directory):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                loaded[name] = file.get_tensor(name).clone().numpy()
    return loaded


def load_as_vllm_eagerly(directory: Path) -> Loaded:
    """``--safetensors-load-strategy=eager``: whole files in one read."""
    loaded: dict[str, Any] = {}
    for path in _shards(directory):
        tensors = import_module("safetensors.torch").load(path.read_bytes())
        loaded.update({name: tensor.numpy() for name, tensor in tensors.items()})
    return loaded


def load_as_sglang(directory: Path) -> Loaded:
    """``multi_thread_safetensors_weights_iterator``: 8 threads with ``load_file``."""
    load_file = import_module("safetensors.torch").load_file

    def load(path: Path) -> dict[str, Any]:
        return {name: tensor.clone().numpy() for name, tensor in load_file(path).items()}

    loaded: dict[str, Any] = {}
    with ThreadPoolExecutor(8) as threads:
        for tensors in threads.map(load, _shards(directory)):
            loaded.update(tensors)
    return loaded


def load_fastsafetensors(directory: Path) -> Loaded:
    library = import_module("fastsafetensors")
    group = library.SingleGroup()
    loader = library.SafeTensorsFileLoader(group, "cpu", nogds=True)
    try:
        loader.add_filenames({0: [str(path) for path in _shards(directory)]})
        buffers = loader.copy_files_to_device()
        names = buffers.key_to_rank_lidx.keys()
        loaded = {name: buffers.get_tensor(name).clone().numpy() for name in names}
        buffers.close()
    finally:
        loader.close()
    return loaded


def load_runai(directory: Path) -> Loaded:
    library = import_module("runai_model_streamer")
    with library.SafetensorsStreamer() as streamer:
        streamer.stream_files([str(path) for path in _shards(directory)])
        return {name: tensor.clone().numpy() for name, tensor in streamer.get_tensors()}


# -- torch ---------------------------------------------------------------------------------------


def make_dcp(directory: Path, mib: int) -> None:
    checkpoint = import_module("torch.distributed.checkpoint")
    checkpoint.save(_torch_tensors(mib), checkpoint_id=str(directory / "dcp"), no_dist=True)


def load_dcp(directory: Path) -> Loaded:
    torch = import_module("torch")
    checkpoint = import_module("torch.distributed.checkpoint")
    where = str(directory / "dcp")
    reader = checkpoint.FileSystemReader(where)
    said = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(one.size, dtype=torch.float32) for name, one in said.items()}
    checkpoint.load(state, checkpoint_id=where, no_dist=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def make_tensorizer(directory: Path, mib: int) -> None:
    library = import_module("tensorizer")
    serializer = library.TensorSerializer(str(directory / "model.tensors"))
    serializer.write_state_dict(_torch_tensors(mib))
    serializer.close()


def load_tensorizer(directory: Path) -> Loaded:
    library = import_module("tensorizer")
    path = str(directory / "model.tensors")
    with library.TensorDeserializer(path, device="cpu", lazy_load=False) as loaded:
        return {name: loaded[name].detach().clone().numpy() for name in loaded}


# -- onnx ----------------------------------------------------------------------------------------


def make_onnx(directory: Path, mib: int) -> None:
    onnx = import_module("onnx")
    helper, names = onnx.helper, []
    weights, nodes, total = [], [], "x"
    for name, array in arrays(mib).items():
        weights.append(onnx.numpy_helper.from_array(array.reshape(-1, 256), name))
        nodes.append(helper.make_node("ReduceSum", [name], [f"s{name}"], keepdims=0))
        nodes.append(helper.make_node("Add", [total, f"s{name}"], [f"t{name}"]))
        total = f"t{name}"
        names.append(name)
    scalar = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", scalar, [])],
        [helper.make_tensor_value_info(total, scalar, [])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(
        model,
        str(directory / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=1024,
    )


def load_onnx(directory: Path) -> Loaded:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return {"": session.run(None, {"x": np.array(1, np.float32)})[0].reshape(1)}


# -- llama.cpp -----------------------------------------------------------------------------------


def make_gguf(directory: Path, mib: int) -> None:
    writer = import_module("gguf").GGUFWriter(directory / "model.gguf", "llama")
    for name, array in arrays(mib).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _mapped(directory: Path, flags: int, advice: int) -> Loaded:
    path = directory / "model.gguf"
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        with mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as mapping:
            mapping.madvise(advice)
            return {"": np.frombuffer(mapping[:], np.uint8)}


def load_as_llama(directory: Path) -> Loaded:
    """Shared, populated, with a hint that all of it is needed."""
    return _mapped(directory, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.MADV_WILLNEED)


def load_as_llama_numa(directory: Path) -> Loaded:
    """``--numa``: not populated, and without readahead."""
    return _mapped(directory, mmap.MAP_SHARED, mmap.MADV_RANDOM)


def load_as_llama_reading(directory: Path) -> Loaded:
    """``--no-mmap``: tensor after tensor through a stdio buffer."""
    path = directory / "model.gguf"
    reader = import_module("gguf").GGUFReader(path)
    places = [(int(t.data_offset), int(t.n_bytes)) for t in reader.tensors]
    with path.open("rb", buffering=4096) as file:
        loaded = {}
        for offset, size in places:
            file.seek(offset)
            loaded[str(offset)] = np.frombuffer(file.read(size), np.uint8)
        return loaded


# -- arrays and tables ---------------------------------------------------------------------------


def make_hdf5(directory: Path, mib: int) -> None:
    with import_module("h5py").File(directory / "arrays.h5", "w") as file:
        for number, (name, array) in enumerate(arrays(mib).items()):
            chunks = (min(MIB // 4, array.size),) if number % 2 else None
            file.create_dataset(name, data=array, chunks=chunks)


def load_hdf5(directory: Path) -> Loaded:
    with import_module("h5py").File(directory / "arrays.h5", "r") as file:
        return {name: file[name][:] for name in file}


def make_zarr(directory: Path, mib: int) -> None:
    zarr = import_module("zarr")
    group = zarr.open_group(directory / "arrays.zarr", mode="w")
    for name, array in arrays(mib, 4).items():
        group.create_array(name, data=array, chunks=(MIB // 2,), compressors=None)


def load_zarr(directory: Path) -> Loaded:
    group = import_module("zarr").open_group(directory / "arrays.zarr", mode="r")
    return {name: group[name][:] for name in group.array_keys()}


def _table(mib: int) -> Any:
    pyarrow = import_module("pyarrow")
    generator, rows = np.random.default_rng(7), mib * MIB // 32
    return pyarrow.table({name: generator.random(rows) for name in "abcd"})


def make_dataset(directory: Path, mib: int) -> None:
    dataset = import_module("datasets.arrow_dataset").Dataset(_table(mib))
    dataset.save_to_disk(directory / "set", num_shards=1)


def load_dataset(directory: Path) -> Loaded:
    """Arrow files are mapped; a training's batches in a shuffled order, then all in order."""
    loaded = import_module("datasets").load_from_disk(directory / "set").with_format("numpy")
    order = np.random.default_rng(3).permutation(len(loaded) // 4096)[:64]
    for batch in order:
        loaded[int(batch) * 4096 : int(batch) * 4096 + 64]
    return dict(loaded[:])


def make_parquet(directory: Path, mib: int) -> None:
    parquet = import_module("pyarrow.parquet")
    rows = mib * MIB // 32 // 6
    parquet.write_table(
        _table(mib), directory / "rows.parquet", row_group_size=rows, compression="none"
    )


def load_parquet(directory: Path) -> Loaded:
    table = import_module("pyarrow.parquet").read_table(directory / "rows.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def load_parquet_columns(directory: Path) -> Loaded:
    """Two columns of four."""
    path = directory / "rows.parquet"
    table = import_module("pyarrow.parquet").read_table(path, columns=["b", "d"])
    return {name: table[name].to_numpy() for name in table.column_names}


def load_duckdb(directory: Path) -> Loaded:
    with import_module("duckdb").connect() as connection:
        path = str(directory / "rows.parquet")
        return dict(connection.execute("SELECT * FROM read_parquet(?)", [path]).fetchnumpy())


def make_webdataset(directory: Path, mib: int) -> None:
    generator = np.random.default_rng(9)
    with tarfile.open(directory / "shard-000000.tar", "w") as archive:
        for number in range(mib * 8):
            member = tarfile.TarInfo(f"{number:06}.bin")
            content = generator.bytes(100_000 + number % 7 * 9000)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def load_webdataset(directory: Path) -> Loaded:
    library = import_module("webdataset")
    samples = library.WebDataset(str(directory / "shard-000000.tar"), shardshuffle=False)
    return {sample["__key__"]: np.frombuffer(sample["bin"], np.uint8) for sample in samples}


def load_tarfile(directory: Path) -> Loaded:
    """The list of members first, then each of them."""
    loaded = {}
    with tarfile.open(directory / "shard-000000.tar") as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            loaded[member.name] = np.frombuffer(file.read(), np.uint8)
    return loaded


def make_faiss(directory: Path, mib: int) -> None:
    faiss = import_module("faiss")
    vectors = np.random.default_rng(13).random((mib * MIB // 512, 128), np.float32)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(128), 128, 64)
    index.train(vectors[:4096])
    index.add(vectors)
    faiss.write_index(index, str(directory / "vectors.index"))


def load_faiss(directory: Path) -> Loaded:
    """Mapped; a few searches, then every list."""
    faiss = import_module("faiss")
    index = faiss.read_index(str(directory / "vectors.index"), faiss.IO_FLAG_MMAP)
    index.nprobe = 4
    vectors = np.random.default_rng(13).random((16, 128), np.float32)
    found = [index.search(vectors, 5)[1]]
    index.nprobe = index.nlist
    found.append(index.search(vectors, 5)[1])
    return {"": np.concatenate(found)}


_SHARDED = "model-00001-of-00004.safetensors"

LIBRARIES: Mapping[str, Library] = MappingProxyType(
    {
        "transformers": Library(
            make_transformer,
            load_transformer,
            "*.safetensors",
            ("transformers", "accelerate"),
        ),
        "diffusers": Library(
            make_diffuser, load_diffuser, "diffusion_pytorch_model.safetensors", ("diffusers",)
        ),
        "ComfyUI's way": Library(make_shards, load_as_comfyui, _SHARDED, ("torch",)),
        "vLLM's way": Library(make_shards, load_as_vllm, _SHARDED, ("torch",)),
        "vLLM's way, eager": Library(make_shards, load_as_vllm_eagerly, _SHARDED, ("torch",)),
        "SGLang's way": Library(make_shards, load_as_sglang, _SHARDED, ("torch",)),
        "fastsafetensors": Library(
            make_shards, load_fastsafetensors, _SHARDED, ("torch", "fastsafetensors")
        ),
        "runai streamer": Library(
            make_shards, load_runai, _SHARDED, ("torch", "runai_model_streamer")
        ),
        "torch DCP": Library(make_dcp, load_dcp, "dcp/__0_0.distcp", ("torch",)),
        "tensorizer": Library(make_tensorizer, load_tensorizer, "model.tensors", ("tensorizer",)),
        "onnxruntime": Library(make_onnx, load_onnx, "model.onnx_data", ("onnx", "onnxruntime")),
        "llama.cpp's way": Library(make_gguf, load_as_llama, "model.gguf", ("gguf",)),
        "llama.cpp's way, no-mmap": Library(
            make_gguf, load_as_llama_reading, "model.gguf", ("gguf",)
        ),
        "llama.cpp's way, numa": Library(make_gguf, load_as_llama_numa, "model.gguf", ("gguf",)),
        "HDF5": Library(make_hdf5, load_hdf5, "arrays.h5", ("h5py",)),
        "zarr": Library(make_zarr, load_zarr, "arrays.zarr/*/c/0", ("zarr",)),
        "datasets, Arrow": Library(make_dataset, load_dataset, "set/*.arrow", ("datasets",)),
        "Parquet, pyarrow": Library(make_parquet, load_parquet, "rows.parquet", ("pyarrow",)),
        "Parquet, two columns": Library(
            make_parquet, load_parquet_columns, "rows.parquet", ("pyarrow",)
        ),
        "Parquet, DuckDB": Library(
            make_parquet, load_duckdb, "rows.parquet", ("pyarrow", "duckdb")
        ),
        "webdataset": Library(
            make_webdataset, load_webdataset, "shard-000000.tar", ("webdataset",)
        ),
        "tarfile": Library(make_webdataset, load_tarfile, "shard-000000.tar", ()),
        "faiss, mapped": Library(make_faiss, load_faiss, "vectors.index", ("faiss",)),
        "tokenizers": Library(make_tokenizer, load_tokenizer, "tokenizer.json", ("tokenizers",)),
    }
)
"""By the name a table shows."""


def main() -> None:
    """Print the names of the packages, for pip to bring the newest of each."""
    for line in metadata.requires("ossfs-py") or ():
        requirement, _, marker = line.partition(";")
        if "loaders" in marker and "==" in requirement:
            sys.stdout.write(requirement.partition("==")[0] + "\n")


if __name__ == "__main__":
    main()
