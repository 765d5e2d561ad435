"""Nearest rows of a matrix with faiss, exact or approximate.

faiss proposes candidates; scores are computed from the rows themselves.

Approximate indexes need a distance, which an inner product is not (asked for inner products, an
inverted file of a table with a bias log p(v) finds 7 of 10 likeliest tokens, a graph 1 of 10). For
them a row x becomes [x ; sqrt(M² - |x|²)] with M the largest norm and a query [q ; 0]: the squared
distance is then |q|² + M² - 2 q·x, so that the nearest row has the largest inner product (Bachrach
et al. 2014, Neyshabur & Srebro 2015). A few long rows, which are those that win most often (a
language model's frequent tokens), would make the new coordinate all that distances see. So the mean
row is subtracted first, which moves all of a query's products by the same number, and the longest
rows are not indexed but always scored.

Shapes: N rows, n of them in faiss, L long ones; Q queries, D coordinates, C candidates, k results.
"""

import math
import os
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headless.errors import HeadlessError
from headless.files import write_bytes

Kind = Literal["exact", "ivf", "hnsw"]
Metric = Literal["cosine", "inner", "l2"]

EXACT_ROWS = 200_000  # up to which "auto" is exact
POINTS_PER_LIST = 39  # what faiss wants at least, to learn a cluster from
SAMPLE_PER_LIST, ITERATIONS = 64, 10  # of k-means, whose time grows with both
EF_CONSTRUCTION, EF = 80, 128  # candidates while a graph is built, and while it is searched
LONG_EVERY = 32  # one row in so many counts as long under inner products
ADD_ROWS = 65_536  # at a time
SCORED_VALUES = 2**25  # of candidate rows in memory at a time


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
    except ImportError as error:
        raise HeadlessError(
            f"nearest neighbours need faiss ({error}): pip install 'headless-lm[faiss]'"
        ) from error
    faiss.omp_set_num_threads(1 if single else torch.get_num_threads())
    return faiss


def automatic_kind(num_rows: int) -> Kind:
    """Exact as long as that is quick."""
    return "exact" if num_rows <= EXACT_ROWS else "ivf"


def num_lists(num_rows: int) -> int:
    """Clusters of an inverted file: 2·sqrt(N), fewer where they would be nearly empty."""
    return max(1, min(round(2 * math.sqrt(num_rows)), num_rows // POINTS_PER_LIST))


def unit(x_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=-1, keepdims=True), 1e-12)


class VectorIndex:
    """Rows that can be searched.

    Args:
        rows_ND: float16 or float32, in memory or mapped: kept, not copied.
        kind: "exact"; "ivf": the rows of the nearest clusters; "hnsw": a graph.
        metric: "l2" is the squared distance.
        file: an index of these rows that is read, or, where there is none, written.
    """

    def __init__(
        self,
        rows_ND: np.ndarray,
        kind: Kind = "exact",
        metric: Metric = "inner",
        file: Path | None = None,
    ) -> None:
        if len(rows_ND) == 0:
            raise HeadlessError("there are no rows to index")
        faiss = load_faiss()
        self.rows_ND, self.kind, self.metric = rows_ND, kind, metric
        self.indexed_n, self.long_L = np.arange(len(rows_ND)), np.arange(0)
        self.by_distance = metric == "inner" and kind != "exact"
        if self.by_distance:
            self._set_long_rows_apart()
        self.index = self._empty(faiss)
        if file is not None and file.is_file():
            self.index = self._read(faiss, file)
        else:
            self._fill()
            if file is not None:
                write_bytes(file, faiss.serialize_index(self.index).tobytes())
        if kind == "ivf":
            self.index.nprobe = min(self.index.nlist, max(16, -(-self.index.nlist // 16)))
        elif kind == "hnsw":
            self.index.hnsw.efSearch = EF

    def _set_long_rows_apart(self) -> None:
        rows_ND = self.rows_ND
        parts = [slice(begin, begin + ADD_ROWS) for begin in range(0, len(rows_ND), ADD_ROWS)]
        self.mean_D = sum(rows_ND[p].sum(0, dtype=np.float64) for p in parts) / len(rows_ND)
        squares_N = np.concatenate([np.square(rows_ND[p] - self.mean_D).sum(1) for p in parts])
        order_N = np.argsort(squares_N, kind="stable")
        count = len(rows_ND) - len(rows_ND) // LONG_EVERY
        self.indexed_n, self.long_L = np.sort(order_N[:count]), np.sort(order_N[count:])
        self.long_LD = rows_ND[self.long_L].astype(np.float32)
        self.largest = float(squares_N[order_N[count - 1]])

    def _empty(self, faiss: Any) -> Any:
        """An index without rows: inner products only where it is exact, distances elsewhere."""
        names = {"exact": "Flat", "ivf": f"IVF{num_lists(len(self.indexed_n))},Flat"}
        inner = self.kind == "exact" and self.metric != "l2"
        index = faiss.index_factory(
            self.rows_ND.shape[1] + self.by_distance,
            names.get(self.kind, "HNSW32"),
            faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2,
        )
        if self.kind == "hnsw":
            index.hnsw.efConstruction = EF_CONSTRUCTION
        elif self.kind == "ivf":
            index.cp.niter = ITERATIONS
        return index

    def _read(self, faiss: Any, file: Path) -> Any:
        try:
            index = faiss.read_index(str(file))
        except RuntimeError:
            index = None
        empty = self.index
        if not isinstance(index, type(empty)) or (
            (index.d, index.metric_type, index.ntotal)
            != (empty.d, empty.metric_type, len(self.indexed_n))
        ):
            raise HeadlessError(
                f"{file} is damaged, or an index of other rows or of another kind: delete it and "
                "run the command again"
            )
        return index

    def _fill(self) -> None:
        ids_n = self.indexed_n
        if not self.index.is_trained:
            sample = min(len(ids_n), SAMPLE_PER_LIST * max(num_lists(len(ids_n)), 256))
            sample_n = np.random.default_rng(0).choice(ids_n, size=sample, replace=False)
            self.index.train(self._vectors(np.sort(sample_n)))
        for begin in range(0, len(ids_n), ADD_ROWS):
            self.index.add(self._vectors(ids_n[begin : begin + ADD_ROWS]))

    def _vectors(self, ids_C: np.ndarray) -> np.ndarray:
        """What faiss gets in place of rows: float32 [C, D] or [C, D + 1]."""
        rows_CD = self.rows_ND[ids_C].astype(np.float32)
        if self.by_distance:
            rows_CD = rows_CD - self.mean_D
            squares_C1 = np.square(rows_CD, dtype=np.float64).sum(axis=1, keepdims=True)
            more_C1 = np.sqrt(np.maximum(self.largest - squares_C1, 0.0))
            return np.concatenate([rows_CD, more_C1], axis=1).astype(np.float32)
        return unit(rows_CD) if self.metric == "cosine" else rows_CD

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (float32) and row numbers (int64) of the k nearest rows, at most N, nearest first.

        -1, with a score of -inf ("l2": +inf), where an approximate search has fewer.
        """
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        k = min(k, len(self.rows_ND))
        queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
        if self.metric == "cosine":
            queries_QD = unit(queries_QD)
        vectors_Q = np.pad(queries_QD, ((0, 0), (0, int(self.by_distance))))
        candidates = min(k, len(self.indexed_n))
        scores_Qk, ids_QC = self.index.search(vectors_Q, candidates)
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
