"""The cone itself: vectors seen along their mean direction."""

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
from headless.geometry.cone import angles_to, cone_axes, isotropic_angle_density
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
        "Vectors of one kind (token embeddings, the rows of the LM head, last hidden states) are "
        "seen from the side: their mean direction points to the right, and the direction at right "
        "angles to it in which they vary most points up. Vectors that pointed everywhere would "
        "stand at 90 degrees to any direction, ever more exactly in more dimensions (standard "
        "deviation 57.3/√D degrees): that is the null. A cone is a set that stands at far less. "
        "Its half angle is the one that holds half, or 95 %, of the vectors. Where taking the mean "
        "away sends the angles back to 90 degrees, the cone was one common direction."
    ),
    needs={"text"},
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
        cloud(
            "cone-together",
            "All sets on one canvas, as unit vectors: along the first set's mean direction and "
            "along what is left of the second's at right angles to it.",
            "_together",
            equal=True,
            together=True,
            wide=False,
        ),
    ),
    claims=tuple(claim for name in SETS for claim in _claims(name)),
)
def cone(lab: Session, *, nulls: bool) -> Finding:
    """Angles to the mean direction and the picture of the cone, for each set of vectors."""
    sets = {Place(name): x.detach().cpu().double() for name, x in lab.tables.items()}
    sets[Place("hidden")] = lab.last_states.detach().cpu().double()
    width = lab.last_states.shape[1]
    axes_AD = {place: cone_axes(x_ND, min(3, width)) for place, x_ND in sets.items()}
    angles_N = {place: angles_to(x_ND, axes_AD[place][0]) for place, x_ND in sets.items()}
    numbers = {place: set_numbers(x_ND, angles_N[place]) for place, x_ND in sets.items()}
    for first, second in combinations(sets, 2):
        cosine = float(axes_AD[first][0] @ axes_AD[second][0])
        numbers[Place(f"{first}/{second}")] = {"axes_cosine": cosine}
    middles = torch.from_numpy((EDGES[:-1] + EDGES[1:]) / 2)
    null = isotropic_angle_density(middles, width).numpy()
    histograms = {p: np.histogram(x.numpy(), EDGES, density=True)[0] for p, x in angles_N.items()}
    generator = torch.Generator().manual_seed(lab.seed)
    drawn = {p: torch.randperm(len(x), generator=generator)[:DRAWN] for p, x in sets.items()}
    shown = {place: x_ND[drawn[place]] for place, x_ND in sets.items()}
    payloads: dict[str, dict[Place, Any]] = {
        "{place}/angles": {place: x_N.numpy() for place, x_N in angles_N.items()},
        "{place}/angle_density": {
            p: Sample(EDGES, x, null, len(angles_N[p])) for p, x in histograms.items()
        },
        "{place}/isotropic_density": dict.fromkeys(sets, null),
        "{place}/vectors": {place: _evenly(x_ND).float().numpy() for place, x_ND in sets.items()},
        "{place}/axes": {place: x_AD.numpy() for place, x_AD in axes_AD.items()},
        "_plane": {},
        "_space": {},
        "_together": _together(shown, axes_AD),
    }
    for place, x_ND in shown.items():
        halves = [numbers[place][f"half_angle_{part}"] for part in (50, 95)]
        payloads["_plane"][place] = _plane(
            x_ND @ axes_AD[place].T, _log_counts(lab, sets[place], drawn[place]), halves
        )
        payloads["_space"][place] = _space(unit(x_ND[:IN_SPACE]) @ axes_AD[place].T, halves[0])
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


def set_numbers(x_ND: Tensor, angles_N: Tensor) -> dict[str, float]:
    """The numbers of one set, from its angles to its mean direction in degrees."""
    low, half, high = np.quantile(angles_N.numpy(), [0.05, 0.5, 0.95]).tolist()
    return {
        "angle": float(angles_N.mean()),
        "angle_05": low,
        "half_angle_50": half,
        "half_angle_95": high,
        "isotropic_angle": 90.0,
        "isotropic_std": 57.29578 / x_ND.shape[1] ** 0.5,
        "mean_cosine": float(mean_cosine(x_ND)),
        "mean_cosine/centred": float(mean_cosine(x_ND - x_ND.mean(dim=0))),
    }


def _evenly(x_ND: Tensor) -> Tensor:
    """The same rows at every checkpoint."""
    return x_ND[torch.linspace(0, len(x_ND) - 1, min(len(x_ND), FOLLOWED)).round().long()]


def _log_counts(lab: Session, x_ND: Tensor, rows_N: Tensor) -> np.ndarray | None:
    """Of the tokens that rows are of, where there is one a token."""
    counts_V = lab.subject.counts_V
    if counts_V is None or len(counts_V) != len(x_ND):
        return None
    return counts_V[rows_N].double().clamp(min=0.5).log10().numpy()


def _plane(x_NA: Tensor, color_N: np.ndarray | None, half_angles: list[float]) -> Cloud:
    """Along the mean direction and the widest across it; what is farther out than 99.5 % is not
    shown."""
    xy = x_NA[:, :2].numpy()
    size_N = np.hypot(*xy.T)
    reach = float(np.quantile(size_N, 0.995))
    near_N = size_N <= reach
    lines = []
    for angle in np.radians(half_angles):
        x, y = reach * np.cos(angle), reach * np.sin(angle)
        lines.append(np.array([[x, y], [0.0, 0.0], [x, -y]]))
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


def _together(shown: dict[Place, Tensor], axes_AD: dict[Place, Tensor]) -> dict[Place, Cloud]:
    (first, along_AD), (_, second_AD) = list(axes_AD.items())[:2]
    left_D = second_AD[0] - (second_AD[0] @ along_AD[0]) * along_AD[0]
    if float(left_D.norm()) < 1e-6:  # both point one way
        left_D = along_AD[1]
    plane_2D = torch.stack([along_AD[0], left_D / left_D.norm()])
    names = (f"mean direction of the {kind_name(first.kind)}", "across it")
    clouds = {}
    for place, x_ND in shown.items():
        xy = (unit(x_ND) @ plane_2D.T).numpy()
        clouds[place] = Cloud(xy, axes=names, lines=(np.stack([xy.mean(axis=0) * 0, xy.mean(0)]),))
    return clouds
