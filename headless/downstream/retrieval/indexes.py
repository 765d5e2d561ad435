"""Nearest rows of a matrix with faiss: exact or approximate, on the CPU or a GPU.

faiss finds candidates; whatever it had to approximate or to rewrite, the scores that come back are
computed from the rows themselves.

Inner products are no distance, and the approximate indexes need one. For them a row x becomes
[x ; sqrt(M² - |x|²)] with M the largest norm and a query [q ; 0]: the squared distance is then
|q|² + M² - 2 q·x, so that the nearest row has the largest inner product (Bachrach et al. 2014,
Neyshabur & Srebro 2015). A few long rows would make M large and the new coordinate all that
distances see, and they are the rows that win most often (a language model's frequent tokens). So
the mean row is subtracted first, which moves all of a query's products by the same number, and the
longest rows are kept apart and always scored.

Shapes: N rows, Q queries, D coordinates, k neighbours.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headless.downstream.retrieval.library import (
    CLASSES,
    PIECE,
    SAMPLE_PER_LIST,
    Device,
    Kind,
    Metric,
    empty_index,
    is_on_gpu,
    load_faiss,
    num_lists,
    one_line,
    to_cpu,
    to_device,
)
from headless.errors import HeadlessError
from headless.files import exclusive

Progress = Callable[[int, int], None]  # done, in all

EXACT_ROWS, FLAT_ROWS = 200_000, 2_000_000  # up to which "auto" is exact, and keeps whole rows
ADD_ROWS = 65_536  # at a time
EF = 128  # candidates of a search of the graph, where none are given
APART = 32  # one row in so many is kept apart under inner products
WIDER = 8  # times k candidates from compressed rows, for the exact scores to choose from
SCORED_VALUES = 2**25  # of candidate rows in memory at a time
WAIT_SECONDS = 600.0  # for another process that saves the same index
GPU_MOST = 2048  # neighbours, and clusters of a search


def automatic_kind(num_rows: int) -> Kind:
    """The kind of index that suits a number of rows: exact as long as that is quick."""
    if num_rows <= EXACT_ROWS:
        return "exact"
    return "ivf" if num_rows <= FLAT_ROWS else "ivfpq"


def unit(x_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


class VectorIndex:
    """Rows that can be searched: made by `build` or `load`.

    Args:
        rows_ND: the rows, in memory or mapped; float16 or float32. They are kept, not copied.
        kind: "exact" (all rows), "ivf" (rows of the nearest clusters), "hnsw" (a graph), "ivfpq"
            (clusters of compressed rows).
        metric: "inner" product, "l2" (squared distance) or "cosine".
        index: faiss's.

    Raises:
        HeadlessError: no rows.
    """

    def __init__(self, rows_ND: np.ndarray, kind: Kind, metric: Metric, index: Any = None) -> None:
        if len(rows_ND) == 0:
            raise HeadlessError("there are no rows to index")
        self.rows_ND = rows_ND
        self.kind: Kind = kind
        self.metric: Metric = metric
        self.index = index
        self.reduced = metric == "inner" and kind != "exact"
        width = rows_ND.shape[1] + self.reduced
        self.width = -(-width // PIECE) * PIECE if kind == "ivfpq" else width
        if self.reduced:
            self.mean_D = sum(_pieces(rows_ND, lambda x: x.sum(0))) / len(rows_ND)
            squares_N = np.concatenate(list(_pieces(rows_ND, lambda x: _squares(x - self.mean_D))))
            order_N = np.argsort(squares_N, kind="stable")
            inside = len(rows_ND) - len(rows_ND) // APART
            self.inside_n, self.apart_A = np.sort(order_N[:inside]), np.sort(order_N[inside:])
            self.apart_AD = rows_ND[self.apart_A].astype(np.float32)
            self.largest = float(squares_N[order_N[inside - 1]])
        else:
            self.inside_n = np.arange(len(rows_ND))

    def _prepare(self, ids_C: np.ndarray) -> np.ndarray:
        """What faiss gets in place of rows: float32 [C, width]."""
        rows_CD = self.rows_ND[ids_C].astype(np.float32)
        made = np.zeros((len(rows_CD), self.width), dtype=np.float32)
        size = rows_CD.shape[1]
        if self.reduced:
            rows_CD = rows_CD - self.mean_D
            made[:, size] = np.sqrt(np.maximum(self.largest - _squares(rows_CD), 0.0))
        made[:, :size] = unit(rows_CD) if self.metric == "cosine" else rows_CD
        return made

    @classmethod
    def build(
        cls,
        rows_ND: np.ndarray,
        kind: Kind = "exact",
        metric: Metric = "inner",
        *,
        nprobe: int | None = None,
        ef: int | None = None,
        device: Device = "auto",
        seed: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> "VectorIndex":
        """Index rows; mapped ones are read in pieces.

        Args:
            rows_ND: see the class.
            kind: see the class.
            metric: see the class.
            nprobe: clusters that a search looks into ("ivf", "ivfpq"); see `tune`.
            ef: candidates that a search of the graph keeps ("hnsw"); see `tune`.
            device: "auto" is the GPU where faiss has one (never for "hnsw").
            seed: which rows the clusters are learned from.
            progress: gets rows that are indexed and rows in all.

        Raises:
            HeadlessError: no faiss, no GPU where one was asked for, no rows, or too few.
        """
        faiss = load_faiss()
        made = cls(rows_ND, kind, metric)
        ids_n = made.inside_n
        index = to_device(
            faiss, empty_index(faiss, kind, metric, len(ids_n), made.width), kind, device
        )
        if not index.is_trained:
            sample = min(len(ids_n), SAMPLE_PER_LIST * max(num_lists(len(ids_n)), 256))
            chosen = np.random.default_rng(seed).choice(ids_n, size=sample, replace=False)
            index.train(made._prepare(np.sort(chosen)))
        for begin in range(0, len(ids_n), ADD_ROWS):
            index.add(made._prepare(ids_n[begin : begin + ADD_ROWS]))
            progress(min(begin + ADD_ROWS, len(ids_n)), len(ids_n))
        made.index = index
        return made.tune(nprobe, ef)

    @classmethod
    def load(
        cls,
        path: Path,
        rows_ND: np.ndarray,
        kind: Kind,
        metric: Metric,
        *,
        nprobe: int | None = None,
        ef: int | None = None,
        device: Device = "auto",
    ) -> "VectorIndex":
        """What `save` wrote, with the rows that it was built from.

        Raises:
            HeadlessError: no faiss, a damaged file, or an index of other rows or of another kind.
        """
        faiss = load_faiss()
        again = f"delete {path} and run the command again"
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise HeadlessError(f"{path} is missing or damaged: {again}") from error
        inner = kind == "exact" and metric != "l2"
        found = (index.d, index.ntotal, index.metric_type == faiss.METRIC_INNER_PRODUCT)
        made = cls(rows_ND, kind, metric)
        wanted = (made.width, len(made.inside_n), inner)
        if not isinstance(index, getattr(faiss, CLASSES[kind])) or found != wanted:
            raise HeadlessError(f"{path} is an index of other rows or of another kind: {again}")
        made.index = to_device(faiss, index, kind, device)
        return made.tune(nprobe, ef)

    def save(self, path: Path) -> None:
        """Write it beside and rename; who makes the same one meanwhile is waited for."""
        faiss = load_faiss()
        beside = path.with_name(f".{path.name}.partial")
        with exclusive(path, patience=WAIT_SECONDS):
            try:
                faiss.write_index(to_cpu(faiss, self.index), str(beside))
                os.replace(beside, path)
            except RuntimeError as error:  # faiss's own word for a full disk, too
                raise HeadlessError(f"{path} cannot be written: {one_line(error)}") from error
            finally:
                beside.unlink(missing_ok=True)

    def tune(self, nprobe: int | None = None, ef: int | None = None) -> "VectorIndex":
        """Set how far a search looks: more finds more and takes longer. None: a default by size.

        Raises:
            HeadlessError: a number below 1, or one that this kind of index has no use for.
        """
        for name, value, kinds in (("nprobe", nprobe, ("ivf", "ivfpq")), ("ef", ef, ("hnsw",))):
            if value is not None and self.kind not in kinds:
                raise HeadlessError(f"{name} is for {' and '.join(kinds)}, not for {self.kind}")
            if value is not None and value < 1:
                raise HeadlessError(f"{name} must be at least 1, got {value}")
        if self.kind in ("ivf", "ivfpq"):
            lists = self.index.nlist
            lists = min(lists, GPU_MOST) if is_on_gpu(self.index) else lists
            self.index.nprobe = min(lists, max(16, -(-lists // 16)) if nprobe is None else nprobe)
        elif self.kind == "hnsw":
            self.index.hnsw.efSearch = EF if ef is None else ef
        return self

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest rows of each query, the nearest first.

        Returns:
            scores_Qk: float32; inner products and cosines: largest first; squared distances:
                smallest first.
            ids_Qk: int64, which rows; -1 (with a score of -inf, for "l2" +inf) where an
                approximate search found fewer. k is at most N.

        Raises:
            HeadlessError: k below 1, or more than a GPU can.
        """
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        k = min(k, len(self.rows_ND))
        queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
        if self.metric == "cosine":
            queries_QD = unit(queries_QD)
        wide = min(len(self.rows_ND), k * WIDER if self.kind == "ivfpq" else k)
        if is_on_gpu(self.index):
            if k > GPU_MOST:
                raise HeadlessError(f"k is at most {GPU_MOST} on a GPU, got {k}")
            wide = min(wide, GPU_MOST)
        asked = np.zeros((len(queries_QD), self.index.d), dtype=np.float32)
        asked[:, : queries_QD.shape[1]] = queries_QD
        scores_Qk, ids_QC = self.index.search(asked, min(wide, len(self.inside_n)))
        if self.kind == "exact":
            return scores_Qk, ids_QC
        if self.reduced:
            ids_QC = np.where(ids_QC < 0, -1, self.inside_n[ids_QC])
            ids_QC = np.concatenate([ids_QC, self._best_apart(queries_QD, k)], axis=1)
        return self._score(queries_QD, ids_QC, k)

    def _best_apart(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """The k best of the rows that are kept apart, in any order."""
        if k >= len(self.apart_A):
            return np.tile(self.apart_A, (len(queries_QD), 1))
        found_QC = np.empty((len(queries_QD), k), dtype=np.int64)
        step = max(1, SCORED_VALUES // len(self.apart_A))
        for begin in range(0, len(queries_QD), step):
            scores_qA = queries_QD[begin : begin + step] @ self.apart_AD.T
            best_qC = np.argpartition(-scores_qA, k - 1, axis=1)[:, :k]
            found_QC[begin : begin + step] = self.apart_A[best_qC]
        return found_QC

    def _score(
        self, queries_QD: np.ndarray, ids_QC: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact scores of candidates, and the k best of them."""
        least = self.metric == "l2"
        scores_QC = np.empty(ids_QC.shape, dtype=np.float32)
        step = max(1, SCORED_VALUES // (ids_QC.shape[1] * queries_QD.shape[1]))
        for begin in range(0, len(ids_QC), step):
            part = slice(begin, begin + step)
            queries_qD, ids_qC = queries_QD[part], ids_QC[part]
            rows_qCD = self.rows_ND[np.maximum(ids_qC, 0)].astype(np.float32)
            if self.metric == "cosine":
                rows_qCD = unit(rows_qCD.reshape(-1, rows_qCD.shape[-1])).reshape(rows_qCD.shape)
            if least:
                scores_QC[part] = np.square(rows_qCD - queries_qD[:, None]).sum(-1)
            else:
                scores_QC[part] = np.einsum("qcd,qd->qc", rows_qCD, queries_qD)
        scores_QC[ids_QC < 0] = np.inf if least else -np.inf
        order_Qk = np.argsort(scores_QC if least else -scores_QC, axis=1, kind="stable")[:, :k]
        return (
            np.take_along_axis(scores_QC, order_Qk, axis=1),
            np.take_along_axis(ids_QC, order_Qk, axis=1),
        )

    @property
    def nbytes(self) -> int:
        """Bytes that faiss holds, as it would write them; the rows themselves not counted."""
        faiss = load_faiss()
        writer = faiss.VectorIOWriter()
        faiss.write_index(to_cpu(faiss, self.index), writer)
        return writer.data.size()


def _pieces(
    rows_ND: np.ndarray, function: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """A function of the rows, in double precision, some rows at a time."""
    for begin in range(0, len(rows_ND), ADD_ROWS):
        yield function(rows_ND[begin : begin + ADD_ROWS].astype(np.float64))


def _squares(rows_CD: np.ndarray) -> np.ndarray:
    return np.square(rows_CD, dtype=np.float64).sum(axis=1)
