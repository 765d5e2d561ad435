"""Nearest rows of a matrix with faiss: exact or approximate, on the CPU or a GPU.

faiss proposes candidates; scores are computed from the rows themselves.

Approximate indexes need a distance, which an inner product is not. For them a row x becomes
[x ; sqrt(M² - |x|²)] with M the largest norm and a query [q ; 0]: the squared distance is then
|q|² + M² - 2 q·x, so that the nearest row has the largest inner product (Bachrach et al. 2014,
Neyshabur & Srebro 2015). A few long rows, which are those that win most often (a language model's
frequent tokens), would make the new coordinate all that distances see. So the mean row is
subtracted first, which moves all of a query's products by the same number, and the longest rows
are not indexed but always scored.

Shapes: N rows, n of them in faiss, L long ones; Q queries, D coordinates, C candidates, k results.
"""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headless.errors import HeadlessError, one_line
from headless.files import exclusive, write_bytes

Kind = Literal["exact", "ivf", "hnsw", "ivfpq"]
Metric = Literal["cosine", "inner", "l2"]
Device = Literal["auto", "cpu", "gpu"]
Progress = Callable[[int, int], None]  # done, in all

EXACT_ROWS, FLAT_ROWS = 200_000, 2_000_000  # up to which "auto" is exact, and keeps whole rows
POINTS_PER_LIST = 39  # what faiss wants at least, to learn a cluster from
SAMPLE_PER_LIST, ITERATIONS = 64, 10  # of k-means, whose time grows with both
EF_CONSTRUCTION = 80  # of the graph
EF = 128  # candidates of a search of the graph, where none are given
PIECE = 4  # coordinates that one code of a product quantizer stands for
LONG_EVERY = 32  # one row in so many counts as long under inner products
WIDER = 8  # times k candidates from compressed rows, for the exact scores to choose from
ADD_ROWS = 65_536  # at a time
SCORED_VALUES = 2**25  # of candidate rows in memory at a time
WAIT_SECONDS = 600.0  # for another process that saves the same index
GPU_MOST = 2048  # neighbours, and clusters of a search


@dataclass(frozen=True)
class Search:
    """How rows are searched."""

    #: "ivf": the rows of the nearest clusters; "hnsw": a graph; "ivfpq": clusters, compressed rows
    kind: Kind = "exact"
    nprobe: int | None = None  #: clusters that a search looks into; None: by their number
    ef: int | None = None  #: candidates that a search of the graph keeps
    device: Device = "auto"  #: "auto" is the GPU where faiss has one (never for "hnsw")

    def __post_init__(self) -> None:
        for name, kinds in (("nprobe", ("ivf", "ivfpq")), ("ef", ("hnsw",))):
            value = getattr(self, name)
            if value is not None and self.kind not in kinds:
                raise HeadlessError(f"{name} is for {' and '.join(kinds)}, not for {self.kind}")
            if value is not None and value < 1:
                raise HeadlessError(f"{name} must be at least 1, got {value}")


def load_faiss() -> Any:
    """The library, with as many threads as torch has.

    Each brings an OpenMP; on macOS a second one ends the process unless it is allowed, and may only
    run single-threaded.
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


def automatic_kind(num_rows: int) -> Kind:
    """Exact as long as that is quick."""
    if num_rows <= EXACT_ROWS:
        return "exact"
    return "ivf" if num_rows <= FLAT_ROWS else "ivfpq"


def num_lists(num_rows: int) -> int:
    """Clusters of an inverted file: 2·sqrt(N), fewer where they would be nearly empty."""
    return max(1, min(round(2 * math.sqrt(num_rows)), num_rows // POINTS_PER_LIST))


def unit(x_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=-1, keepdims=True), 1e-12)


class VectorIndex:
    """Rows that can be searched: made by `build` or `load`.

    `rows_ND`, float16 or float32, in memory or mapped, are kept, not copied. "l2" is the squared
    distance.
    """

    def __init__(self, rows_ND: np.ndarray, search: Search | Kind, metric: Metric) -> None:
        if len(rows_ND) == 0:
            raise HeadlessError("there are no rows to index")
        self.rows_ND = rows_ND
        self.options = Search(search) if isinstance(search, str) else search
        self.kind, self.metric = self.options.kind, metric
        self.index: Any = None
        self.by_distance = metric == "inner" and self.kind != "exact"
        width = rows_ND.shape[1] + self.by_distance
        self.width = -(-width // PIECE) * PIECE if self.kind == "ivfpq" else width
        self.indexed_n, self.long_L = np.arange(len(rows_ND)), np.arange(0)
        if self.by_distance:
            parts = [slice(begin, begin + ADD_ROWS) for begin in range(0, len(rows_ND), ADD_ROWS)]
            self.mean_D = sum(rows_ND[p].sum(0, dtype=np.float64) for p in parts) / len(rows_ND)
            squares_N = np.concatenate(
                [np.square(rows_ND[p] - self.mean_D).sum(1) for p in parts]  # in float64
            )
            order_N = np.argsort(squares_N, kind="stable")
            count = len(rows_ND) - len(rows_ND) // LONG_EVERY
            self.indexed_n, self.long_L = np.sort(order_N[:count]), np.sort(order_N[count:])
            self.long_LD = rows_ND[self.long_L].astype(np.float32)
            self.largest = float(squares_N[order_N[count - 1]])

    @classmethod
    def build(
        cls,
        rows_ND: np.ndarray,
        search: Search | Kind = "exact",
        metric: Metric = "inner",
        *,
        progress: Progress = lambda done, total: None,
    ) -> "VectorIndex":
        """Index rows; mapped ones are read in pieces. `progress` gets rows done and in all."""
        faiss = load_faiss()
        built = cls(rows_ND, search, metric)
        ids_n = built.indexed_n
        index = built._to_device(faiss, built._empty(faiss))
        if not index.is_trained:
            sample = min(len(ids_n), SAMPLE_PER_LIST * max(num_lists(len(ids_n)), 256))
            sample_n = np.random.default_rng(0).choice(ids_n, size=sample, replace=False)
            index.train(built._prepare(np.sort(sample_n)))
        for begin in range(0, len(ids_n), ADD_ROWS):
            index.add(built._prepare(ids_n[begin : begin + ADD_ROWS]))
            progress(min(begin + ADD_ROWS, len(ids_n)), len(ids_n))
        built.tune(index)
        return built

    @classmethod
    def load(
        cls, path: Path, rows_ND: np.ndarray, search: Search | Kind, metric: Metric
    ) -> "VectorIndex":
        """What `save` wrote, with the rows that it was built from."""
        faiss = load_faiss()
        advice = f"delete {path} and run the command again"
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise HeadlessError(f"{path} is missing or damaged: {advice}") from error
        loaded = cls(rows_ND, search, metric)
        empty = loaded._empty(faiss)
        same = (index.d, index.metric_type) == (empty.d, empty.metric_type)
        if not same or not isinstance(index, type(empty)) or index.ntotal != len(loaded.indexed_n):
            raise HeadlessError(f"{path} is an index of other rows or of another kind: {advice}")
        loaded.tune(loaded._to_device(faiss, index))
        return loaded

    def save(self, path: Path) -> None:
        """Write it in one step; another process that writes the same file is waited for."""
        with exclusive(path, patience=WAIT_SECONDS):
            write_bytes(path, self._serialized().tobytes())

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (float32) and row numbers (int64) of the k nearest rows, at most N, nearest first.

        -1, with a score of -inf ("l2": +inf), where an approximate search has fewer.
        """
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        k = min(k, len(self.rows_ND))
        candidates = min(len(self.indexed_n), k * WIDER if self.kind == "ivfpq" else k)
        if _is_on_gpu(self.index):
            if k > GPU_MOST:
                raise HeadlessError(f"k is at most {GPU_MOST} on a GPU, got {k}")
            candidates = min(candidates, GPU_MOST)
        queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
        if self.metric == "cosine":
            queries_QD = unit(queries_QD)
        padded = np.zeros((len(queries_QD), self.index.d), dtype=np.float32)
        padded[:, : queries_QD.shape[1]] = queries_QD
        scores_Qk, ids_QC = self.index.search(padded, candidates)
        if self.kind == "exact":
            return scores_Qk, ids_QC
        step = max(1, SCORED_VALUES // max(candidates * queries_QD.shape[1], len(self.long_L)))
        parts = [slice(begin, begin + step) for begin in range(0, len(queries_QD), step)]
        best = [self._best(queries_QD[part], ids_QC[part], k) for part in parts]
        scores, ids = zip(*best, strict=True)
        return np.concatenate(scores), np.concatenate(ids)

    def _best(
        self, queries_QD: np.ndarray, ids_QC: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of the candidates and of the long rows, by exact scores."""
        if self.by_distance:
            ids_QC = np.where(ids_QC < 0, -1, self.indexed_n[ids_QC])
            long_QC = np.tile(self.long_L, (len(queries_QD), 1))
            if k < len(self.long_L):
                scores_QL = queries_QD @ self.long_LD.T
                long_QC = self.long_L[np.argpartition(-scores_QL, k - 1, axis=1)[:, :k]]
            ids_QC = np.concatenate([ids_QC, long_QC], axis=1)
        rows_QCD = self.rows_ND[np.maximum(ids_QC, 0)].astype(np.float32)
        sign = -1.0 if self.metric == "l2" else 1.0
        if self.metric == "l2":
            scores_QC = np.square(rows_QCD - queries_QD[:, None]).sum(-1)
        else:
            rows_QCD = unit(rows_QCD) if self.metric == "cosine" else rows_QCD
            scores_QC = np.einsum("qcd,qd->qc", rows_QCD, queries_QD)
        scores_QC[ids_QC < 0] = -sign * np.inf
        order_Qk = np.argsort(-sign * scores_QC, axis=1, kind="stable")[:, :k]
        return (
            np.take_along_axis(scores_QC, order_Qk, axis=1),
            np.take_along_axis(ids_QC, order_Qk, axis=1),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of what `save` writes."""
        return self._serialized().size

    def _serialized(self) -> np.ndarray:
        faiss, index = load_faiss(), self.index
        return faiss.serialize_index(faiss.index_gpu_to_cpu(index) if _is_on_gpu(index) else index)

    def _empty(self, faiss: Any) -> Any:
        """An index without rows: inner products only where it is exact, distances elsewhere."""
        rows, lists = len(self.indexed_n), num_lists(len(self.indexed_n))
        bits = min(8, int(math.log2(max(1, rows // POINTS_PER_LIST)) or 1))
        if self.kind == "ivfpq" and bits < 4:
            raise HeadlessError(
                f"{rows} rows are too few to learn how to compress them: take --index exact"
            )
        name = {
            "exact": "Flat",
            "ivf": f"IVF{lists},Flat",
            "hnsw": "HNSW32",
            "ivfpq": f"IVF{lists},PQ{self.width // PIECE}x{bits}",
        }[self.kind]
        inner = self.kind == "exact" and self.metric != "l2"
        metric = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
        index = faiss.index_factory(self.width, name, metric)
        if self.kind == "hnsw":
            index.hnsw.efConstruction = EF_CONSTRUCTION
        elif self.kind != "exact":
            index.cp.niter = ITERATIONS
        return index

    def _prepare(self, ids_C: np.ndarray) -> np.ndarray:
        """What faiss gets in place of rows: float32 [C, width]."""
        rows_CD = self.rows_ND[ids_C].astype(np.float32)
        vectors_C = np.zeros((len(rows_CD), self.width), dtype=np.float32)
        size = rows_CD.shape[1]
        if self.by_distance:
            rows_CD = rows_CD - self.mean_D
            squares_C = np.square(rows_CD, dtype=np.float64).sum(axis=1)
            vectors_C[:, size] = np.sqrt(np.maximum(self.largest - squares_C, 0.0))
        vectors_C[:, :size] = unit(rows_CD) if self.metric == "cosine" else rows_CD
        return vectors_C

    def _to_device(self, faiss: Any, index: Any) -> Any:
        """The index on the GPU, where it is wanted and possible."""
        device = self.options.device
        has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        if device == "gpu" and (not has_gpu or self.kind == "hnsw"):
            reason = "hnsw runs on the CPU only" if has_gpu else "faiss sees no GPU"
            raise HeadlessError(f"{reason}: take --index_device cpu, or another --index")
        if device == "cpu" or not has_gpu or self.kind == "hnsw":
            return index
        options = faiss.GpuClonerOptions()
        options.useFloat16 = self.kind == "ivfpq"  # lookup tables of many codes do not fit
        try:
            return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
        except RuntimeError as error:  # some numbers of codes and bits have no kernel
            if device == "gpu":
                line = one_line(error, 200)
                raise HeadlessError(
                    f"faiss cannot put this {self.kind} on the GPU: {line}"
                ) from error
            return index

    def tune(self, index: Any) -> None:
        """Set how far a search of the index looks, and keep it."""
        nprobe, ef = self.options.nprobe, self.options.ef
        if self.kind in ("ivf", "ivfpq"):
            lists = min(index.nlist, GPU_MOST) if _is_on_gpu(index) else index.nlist
            index.nprobe = min(lists, nprobe or max(16, -(-lists // 16)))
        elif self.kind == "hnsw":
            index.hnsw.efSearch = ef or EF
        self.index = index


def _is_on_gpu(index: Any) -> bool:
    return type(index).__name__.startswith("Gpu")
