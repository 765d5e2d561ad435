"""Do nearest contexts help a model? kNN-LM (Khandelwal et al. 2020) on a store of its contexts.

headless neighbors --model RUN --build_store DATA --store STORE
python examples/knn_lm.py RUN STORE DATA

p(v) = λ p_kNN(v) + (1 - λ) p_model(v), p_kNN(v) ∝ Σ exp(-d²/τ) over the stored contexts that are
nearest and whose next token is v, d² the squared distance of hidden states. τ is given in units of
the store's spread (the mean squared distance of its keys from their mean). The validation split of
DATA is read in windows: λ and τ are chosen on those with even numbers, scored on the others.

Shapes: Q positions, k neighbours, D hidden size, V vocabulary, R temperatures, S = 2 + R rows.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import headless
from headless.downstream.retrieval.store import HiddenStore, open_for, open_store, read_windows

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
WEIGHTS = tuple(n / 20 for n in range(20))  # λ


def shares(distances_Qk: np.ndarray, tau: float) -> np.ndarray:
    """softmax(-d²/τ) over the neighbours, float64 [Q, k]."""
    nearest_Q1 = distances_Qk.min(axis=1, keepdims=True)
    weights_Qk = np.exp((nearest_Q1 - distances_Qk.astype(np.float64)) / tau)
    return weights_Qk / weights_Qk.sum(axis=1, keepdims=True)


@torch.no_grad()
def knn_lm(
    lm: headless.LanguageModel,
    store: HiddenStore,
    data: Path | str,
    *,
    neighbors: int = 256,
    max_tokens: int | None = None,
) -> dict[str, float]:
    """Nats a token with and without neighbours, and the λ and τ that were chosen."""
    _, stream = open_for(lm, data, "validation")
    total = min(len(stream) - 1, max_tokens or len(stream))
    head: Any = lm.model.get_output_embeddings()  # a matrix, perhaps with a bias
    index, parts = store.index(), []
    for hidden_nD, targets_n in read_windows(lm, stream, total, store.manifest.context_length):
        log_nV = head(hidden_nD.to(lm.model.device)).float().log_softmax(-1).cpu()
        model_n = log_nV.gather(1, targets_n[:, None])[:, 0].double().exp().numpy()
        distances_nk, rows_nk = index.search(hidden_nD.numpy(), neighbors)
        right_nk = store.values_N[rows_nk] == targets_n.numpy()[:, None]
        taus = [t * store.manifest.spread for t in TEMPERATURES]
        knn = [(shares(distances_nk, tau) * right_nk).sum(axis=1) for tau in taus]
        parts.append(np.stack([model_n, right_nk.any(axis=1), *knn]))
    choose_SQ, report_SQ = (np.concatenate(parts[parity::2], axis=1) for parity in (0, 1))

    def nats(part_SQ: np.ndarray, weight: float, place: int) -> float:
        return float(-np.log(weight * part_SQ[2 + place] + (1 - weight) * part_SQ[0]).mean())

    grid = [(w, place) for w in WEIGHTS for place in range(len(TEMPERATURES))]
    weight, place = min(grid, key=lambda pair: nats(choose_SQ, *pair))
    return {
        "model": nats(report_SQ, 0.0, place),
        "with neighbours": nats(report_SQ, weight, place),
        "share of tokens that a neighbour has": float(report_SQ[1].mean()),
        "λ": weight,
        "τ": TEMPERATURES[place],
    }


if __name__ == "__main__":
    run, store_path, data_path = sys.argv[1:]
    model = headless.load(run, needs_head=True)
    found = knn_lm(model, open_store(store_path, model), data_path)
    print("\n".join(f"{name:40s}{value:.4f}" for name, value in found.items()))  # noqa: T201
