"""How far each layer is from its final state: CKA, PWCCA, and how its spectrum drifts."""

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.courses import States
from headless.analysis.record import MODEL, STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states import moments
from headless.analysis.states.reservoirs import by_place
from headless.errors import HeadlessError
from headless.geometry import linear_cka, pwcca, spectrum_drift

ALIKE = 0.9  # CKA from which on a layer is taken to be settled
MEASURES = (
    Measure("cka", "CKA with the last checkpoint", null="cka_shuffled"),
    Measure("pwcca", "PWCCA with the last checkpoint", null="pwcca_shuffled"),
    Measure("drift", "drift of the spectrum since the checkpoint before", null="drift_halves"),
    Measure("drift_to_last", "drift of the spectrum until the last checkpoint"),
)


def states_of(lab: Session) -> dict[Place, States]:
    """Of every point of the stream."""
    return {
        place: States(s.sample_KD, torch.from_numpy(moments.eigenvalues(s).copy()))
        for place, s in by_place(lab.statistics, *STREAM).items()
        if s.outer_DD is not None
    }


@analysis(
    "convergence",
    title="How near is each layer to its final state?",
    about=(
        "The states of the same tokens at this checkpoint and at the last one, whatever their "
        "axes: linear CKA (debiased), which a few directions of large variance decide, and PWCCA, "
        "the mean canonical correlation weighted by how much of the states lies along it. 1: the "
        "same up to a rotation, or to any linear map. Their null pairs the states of different "
        "tokens: PWCCA is well above 0 there. Drift is the share of the variance that two spectra, "
        "each scaled to a sum of 1, have at different ranks; its null compares two halves of the "
        "states of one checkpoint."
    ),
    needs={"text", "checkpoints"},
)
def convergence(lab: Session, *, nulls: bool) -> Finding:
    """Of one checkpoint of a run, beside the one before and the last."""
    assert lab.checkpoints is not None
    draw = torch.Generator().manual_seed(lab.seed)
    numbers: dict[Place, dict[str, float]] = {}
    for place, now in states_of(lab).items():
        last, before = lab.checkpoints.last[place], lab.checkpoints.before.get(place)
        pair = last.sample_KD.double(), now.sample_KD.double()
        found = {"cka": linear_cka(*pair), "pwcca": pwcca(*pair)}
        found["drift_to_last"] = spectrum_drift(now.eigenvalues_D, last.eigenvalues_D)
        if before is not None:
            found["drift"] = spectrum_drift(before.eigenvalues_D, now.eigenvalues_D)
        if nulls:
            other_KD = pair[1][torch.randperm(len(pair[1]), generator=draw)]
            found["cka_shuffled"] = linear_cka(pair[0], other_KD)
            found["pwcca_shuffled"] = pwcca(pair[0], other_KD)
            if before is not None:
                found["drift_halves"] = spectrum_drift(*(_spectrum(pair[1][i::2]) for i in (0, 1)))
        numbers[place] = found
    finding = Finding(series_of(numbers, MEASURES))
    cka, post = finding.values("cka", *STREAM), finding.values("cka", "post")
    return finding.answered(
        f"With the last checkpoint the states have a CKA of {post.min():.2f} to {post.max():.2f} "
        f"after the blocks, {cka[-1]:.2f} where the head reads them."
    )


def _spectrum(x_KD: Tensor) -> Tensor:
    x_KD = x_KD - x_KD.mean(dim=0)
    return torch.linalg.eigvalsh(x_KD.T @ x_KD).clamp(min=0).flip(0)


SETTLED = (
    Measure("step", f"step from which on the CKA stays at {ALIKE} or more"),
    Measure("rho", "rank correlation of that step and the depth"),
    Measure("p", "its p"),
)


@analysis(
    "settling",
    title="Which layers settle first?",
    about=(
        f"The first checkpoint from which on a layer's CKA with the last one stays at {ALIKE} or "
        "more, and Spearman's rank correlation of that step with the depth over the blocks; the "
        "null of its p is that there is none."
    ),
    needs={"courses"},
    claims=(
        Claim(
            "Raghu et al. 2017",
            "layers settle from the bottom up",
            ((values("rho").only > 0) & (values("p").only < 0.05)).given(
                values("step", "post").count >= 5, "needs five blocks"
            ),
        ),
    ),
)
def settling(lab: Session, *, nulls: bool) -> Finding:
    """Of all kept checkpoints of a run."""
    from scipy.stats import spearmanr

    assert lab.courses is not None
    courses = lab.courses.places("convergence", "cka", *STREAM)
    if not courses:
        raise HeadlessError("the layers of no checkpoint were compared with the last: --steps all")
    numbers = {p: {"step": _settled(lab.courses.steps_S, x_S)} for p, x_S in courses.items()}
    steps = np.array([one["step"] for place, one in numbers.items() if place.kind == "post"])
    if len(steps) > 2 and np.ptp(steps):
        rho, p = spearmanr(np.arange(len(steps)), steps)
        numbers[MODEL] = {"rho": float(rho), "p": float(p)}
    finding = Finding(series_of(numbers, SETTLED))
    return finding.answered(
        f"From a CKA of {ALIKE} on the blocks stay at steps "
        f"{', '.join(f'{step:,.0f}' for step in steps)}, from the first to the last."
    )


def _settled(steps_S: np.ndarray, cka_S: np.ndarray) -> float:
    below = np.flatnonzero(~(cka_S >= ALIKE))
    first = int(below[-1]) + 1 if len(below) else 0
    return float(steps_S[first]) if first < len(steps_S) else float("nan")
