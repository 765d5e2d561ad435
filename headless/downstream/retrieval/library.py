"""faiss itself: how it is loaded, which of its indexes stand behind our kinds, CPU and GPU.

Shapes: N rows, D coordinates of what faiss gets.
"""

import math
import os
import sys
from typing import Any, Literal

from headless.errors import HeadlessError

Kind = Literal["exact", "ivf", "hnsw", "ivfpq"]
Metric = Literal["inner", "l2", "cosine"]
Device = Literal["auto", "cpu", "gpu"]

POINTS_PER_LIST = 39  # what faiss wants at least, to learn a cluster from
SAMPLE_PER_LIST, ITERATIONS = 64, 10  # of k-means, whose time grows with both
LINKS, EF_CONSTRUCTION = 32, 80  # of HNSW
PIECE = 4  # coordinates that one code of a product quantizer stands for
CLASSES: dict[Kind, str] = {
    "exact": "IndexFlat",
    "ivf": "IndexIVFFlat",
    "hnsw": "IndexHNSWFlat",
    "ivfpq": "IndexIVFPQ",
}


def load_faiss() -> Any:
    """The library, with as many threads as torch has.

    faiss and torch each bring an OpenMP. On Linux the two live beside each other; on macOS a
    second one ends the process unless it is allowed, and may only run single-threaded.

    Raises:
        HeadlessError: it is not installed, or cannot be loaded.
    """
    import torch

    single = sys.platform == "darwin"
    if single:
        os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise HeadlessError(
            "nearest neighbours need faiss: pip install 'headless-lm[faiss]', or with an NVIDIA "
            "GPU 'headless-lm[gpu]'"
        ) from error
    except ImportError as error:
        raise HeadlessError(f"faiss is installed but cannot be loaded: {error}") from error
    faiss.omp_set_num_threads(1 if single else torch.get_num_threads())
    return faiss


def num_lists(num_rows: int) -> int:
    """Clusters of an inverted file: 2·sqrt(N), fewer where they would be nearly empty."""
    return max(1, min(round(2 * math.sqrt(num_rows)), num_rows // POINTS_PER_LIST))


def empty_index(faiss: Any, kind: Kind, metric: Metric, num_rows: int, width: int) -> Any:
    """An index of our kind without rows: inner products only where it is exact, else distances.

    Raises:
        HeadlessError: too few rows for a product quantizer.
    """
    if kind == "exact":
        return faiss.IndexFlatL2(width) if metric == "l2" else faiss.IndexFlatIP(width)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_L2)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        return index
    quantizer, lists = faiss.IndexFlatL2(width), num_lists(num_rows)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_L2)
    else:
        bits = min(8, int(math.log2(max(1, num_rows // POINTS_PER_LIST)) or 1))
        if bits < 4:
            raise HeadlessError(
                f"{num_rows} rows are too few to learn how to compress them: take --index exact"
            )
        index = faiss.IndexIVFPQ(quantizer, width, lists, width // PIECE, bits, faiss.METRIC_L2)
    index.cp.niter = ITERATIONS
    index.own_fields = True
    quantizer.this.disown()  # the index frees it
    return index


def is_on_gpu(index: Any) -> bool:
    """Whether an index lives on a GPU."""
    return type(index).__name__.startswith("Gpu")


def to_cpu(faiss: Any, index: Any) -> Any:
    """The index itself, or a copy of one on a GPU."""
    return faiss.index_gpu_to_cpu(index) if is_on_gpu(index) else index


def to_device(faiss: Any, index: Any, kind: Kind, device: Device) -> Any:
    """The index on the GPU, where it is wanted and possible.

    Raises:
        HeadlessError: it was asked for, and is not possible.
    """
    has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if device == "gpu" and (not has_gpu or kind == "hnsw"):
        reason = "hnsw runs on the CPU only" if has_gpu else "faiss sees no GPU"
        raise HeadlessError(f"{reason}: take --index_device cpu, or another --index")
    if device == "cpu" or not has_gpu or kind == "hnsw":
        return index
    options = faiss.GpuClonerOptions()
    options.useFloat16 = kind == "ivfpq"  # lookup tables of many codes do not fit otherwise
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
    except RuntimeError as error:  # some numbers of codes and bits have no kernel
        if device == "gpu":
            raise HeadlessError(
                f"faiss cannot put this {kind} on the GPU: {one_line(error)}"
            ) from error
        return index


def one_line(error: Exception) -> str:
    """What a library said, short enough for a message."""
    return " ".join(str(error).split())[:200]
