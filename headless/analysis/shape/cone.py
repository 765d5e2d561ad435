"""The cone itself: vectors seen along their mean direction."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import cloud, density
from headless.analysis.drawing.grid import kind_name
from headless.analysis.record import Cloud, Finding, Measure, Payload, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import TALK
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.isotropy import angles_to, cone_axes, isotropic_angle_density
from headless.geometry.projection import unit

SETS = ("embedding", "head", "hidden")
DRAWN = 4000  # vectors in a scatter
IN_SPACE = 1500  # of them in three dimensions
FOLLOWED = 1500  # vectors whose way is followed over checkpoints
EDGES = np.arange(0.0, 181.0, 2.0)  # degrees
CONE = 75.0  # mean angle in degrees below which a set is one
MEASURES = (
    Measure("angle", "mean angle to the mean direction (isotropic: 90°)", null="isotropic_angle"),
    Measure("mean_cosine/centred", "mean cosine less the mean"),
)


def _claims(name: str) -> tuple[Claim, Claim]:
    angle = values("angle", name).only.formed(".1f") < CONE
    centred = values("mean_cosine/centred", name).largest_size.formed(".4f") < 0.01
    verb = "are" if name == "hidden" else "is"

    def asked(finding: Finding) -> bool:
        return len(finding.values("angle", name)) > 0

    return (
        Claim(TALK, f"the {kind_name(name)} {verb} cone-shaped", angle, asked=asked),
        Claim(
            "Gao et al. 2019",
            f"the cone of the {kind_name(name)} is one common direction",
            centred.given(angle),
            asked=asked,
        ),
    )


def _along(finding: Finding, last: Finding) -> Finding:
    """Its vectors in the directions of another checkpoint's cone."""
    axes = last.payloads["{place}/axes"]
    names = ("along the last checkpoint's mean direction", "widest direction across it")
    clouds: dict[Place, Payload] = {
        place: Cloud(vectors @ axes[place][:2].T, axes=names)  # type: ignore[index]
        for place, vectors in finding.payloads["{place}/vectors"].items()
    }
    return replace(finding, payloads={**finding.payloads, "_plane": clouds})


@analysis(
    "cone",
    title="The cone",
    about=(
        "Vectors of one kind (token embeddings, the rows of the LM head, last hidden states) "
        "are seen from the side: their mean direction points to the right, and the direction at "
        "right angles to it in which they vary most points up. Vectors that pointed everywhere "
        "would stand at 90 degrees to any direction, ever more exactly in more dimensions "
        "(standard deviation 57.3/√D degrees): that is the null. A cone stands at far less; its "
        "half angle holds half, or 95 %, of the vectors. Where taking the mean away sends the "
        "angles back to 90 degrees, it was one common direction."
    ),
    needs={"text"},
    states="last",
    figures=(
        density(
            "cone-angles",
            "Angles of the vectors to their mean direction. Filled: directions drawn uniformly in "
            "as many dimensions (null).",
            "{place}/angle_density",
            x="degrees to the mean direction",
            null="isotropic",
            film=("film-cone-angles", "Angles to each checkpoint's own mean direction"),
        ),
        cloud(
            "cone-plane",
            "The cone from the side. The cross is the origin, the lines hold half (solid) and 95 % "
            "(dashed) of the vectors; darker points are rarer tokens. The dotted vertical line is "
            "where vectors that point everywhere would lie (null).",
            "_plane",
            color="log10 count",
            equal=True,
            film=("film-cone", "The same vectors in the last checkpoint's directions"),
            seen=_along,
        ),
        cloud(
            "cone-space",
            "The directions of the vectors alone (length 1) along the mean direction and the two "
            "widest ones across it, with the cone that holds half of them.",
            "_space",
        ),
    ),
    claims=tuple(claim for name in SETS for claim in _claims(name)),
)
def cone(lab: Session, *, nulls: bool) -> Finding:
    """Angles to the mean direction and the picture of the cone, for each set of vectors."""
    sets = {Place(name): x.detach().cpu().double() for name, x in lab.tables.items()}
    sets[Place("hidden")] = lab.last_states.detach().cpu().double()
    width = lab.last_states.shape[1]
    middles = torch.from_numpy((EDGES[:-1] + EDGES[1:]) / 2)
    null = isotropic_angle_density(middles, width).numpy()
    numbers: dict[Place, dict[str, float]] = {}
    payloads: dict[str, dict[Place, Any]] = defaultdict(dict)
    generator = torch.Generator().manual_seed(lab.seed)
    for place, x_ND in sets.items():
        axes_AD = cone_axes(x_ND, min(3, width))
        angles_N = angles_to(x_ND, axes_AD[0]).numpy()
        half, high = np.quantile(angles_N, [0.5, 0.95]).tolist()
        numbers[place] = {
            "angle": float(angles_N.mean()),
            "half_angle_50": half,
            "half_angle_95": high,
            "isotropic_angle": 90.0,
            "mean_cosine": float(mean_cosine(x_ND)),
            "mean_cosine/centred": float(mean_cosine(x_ND - x_ND.mean(dim=0))),
        }
        density_K = np.histogram(angles_N, EDGES, density=True)[0]
        same_N = torch.linspace(0, len(x_ND) - 1, min(len(x_ND), FOLLOWED)).round().long()
        rows_N = torch.randperm(len(x_ND), generator=generator)[:DRAWN]
        seen_NA = x_ND[rows_N] @ axes_AD.T
        payloads["{place}/angles"][place] = angles_N
        payloads["{place}/angle_density"][place] = Sample(EDGES, density_K, null, len(angles_N))
        payloads["{place}/isotropic_density"][place] = null
        payloads["{place}/vectors"][place] = x_ND[same_N].float().numpy()
        payloads["{place}/axes"][place] = axes_AD.numpy()
        payloads["_plane"][place] = _plane(seen_NA, _log_counts(lab, x_ND, rows_N), (half, high))
        payloads["_space"][place] = _space(unit(x_ND[rows_N[:IN_SPACE]]) @ axes_AD.T, half)
    for first, second in combinations(sets, 2):
        axes = payloads["{place}/axes"]
        cosine = float(axes[first][0] @ axes[second][0])
        numbers[Place(f"{first}/{second}")] = {"axes_cosine": cosine}
    parts = [
        f"the {kind_name(place.kind)} at {numbers[place]['angle']:.1f}° (mean cosine "
        f"{numbers[place]['mean_cosine']:.2f}, less the mean "
        f"{numbers[place]['mean_cosine/centred']:.4f})"
        for place in sets
    ]
    return Finding(series_of(numbers, MEASURES), payloads).answered(
        f"Mean angles to the mean direction: {'; '.join(parts)}; isotropic: 90 ± "
        f"{57.29578 / width**0.5:.1f}°."
    )


def _log_counts(lab: Session, x_ND: Tensor, rows_N: Tensor) -> np.ndarray | None:
    """Of the tokens that rows are of, where there is one a token."""
    counts_V = lab.subject.counts_V
    counts_R = None if counts_V is None else counts_V[lab.table_rows]
    if counts_R is None or len(counts_R) != len(x_ND):
        return None
    return counts_R[rows_N].double().clamp(min=0.5).log10().numpy()


def _plane(x_NA: Tensor, color_N: np.ndarray | None, half_angles: tuple[float, float]) -> Cloud:
    """Along the mean direction and the widest across it; what is farther out than 99.5 % is not
    shown."""
    xy = x_NA[:, :2].numpy()
    size_N = np.hypot(*xy.T)
    reach = float(np.quantile(size_N, 0.995))
    near_N = size_N <= reach
    ends = [reach * np.array([np.cos(angle), np.sin(angle)]) for angle in np.radians(half_angles)]
    lines = [np.array([end, [0.0, 0.0], end * (1, -1)]) for end in ends]
    lines.append(np.array([[0.0, reach], [0.0, -reach]]) * 0.6)
    names = ("along the mean direction", "widest direction across it")
    return Cloud(xy[near_N], None if color_N is None else color_N[near_N], names, tuple(lines))


def _space(unit_NA: Tensor, half_angle: float) -> Cloud:
    """Unit vectors, the mean direction up, and the spokes and the rim of a cone."""
    turn, half = np.linspace(0, 2 * np.pi, 17), np.radians(half_angle)
    rim = np.stack([np.cos(turn), np.sin(turn), np.full(17, 1 / np.tan(half))], axis=1)
    spokes = np.stack([rim[:-1], rim[1:], 0 * rim[1:]], axis=1).reshape(-1, 3) * np.sin(half)
    xyz = torch.nn.functional.pad(unit_NA, (0, 3 - unit_NA.shape[1]))[:, [1, 2, 0]].numpy()
    return Cloud(xyz, axes=("", "", "along the mean"), lines=(spokes,))
