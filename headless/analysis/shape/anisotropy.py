"""How much states point one way, by layer and in every variant that sources use."""

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import STREAM, Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import ISOTROPY
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.reservoirs import by_place
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.isotropy import isoscore, partition_isotropy

ROGUE = 5  # dimensions that are taken out for one variant
PARTITION = 1024  # states for the partition function
SHUFFLED = 512  # states whose entries are shuffled
LEAST = 0.01  # mean cosine of which the dimensions' shares are drawn
MEASURES = (
    Measure("", "mean cosine", null="shuffled"),
    Measure("within", "mean cosine within a text"),
    Measure("without_rogue", f"mean cosine without {ROGUE} dimensions"),
    Measure("centred", "mean cosine less the mean"),
    Measure("standardised", "mean cosine, dimensions standardised"),
    Measure("first_share", "share of the first singular value"),
)
LINES = tuple(measure.name for measure in MEASURES[:5])

COSINE, SHARE = values("", "post"), values("first_share", "post")
CLAIMS = (
    Claim(
        "Ethayarajh 2019",
        "states of all layers but the input are anisotropic, the last ones most",
        (COSINE.smallest > 0.1) & (COSINE.last >= COSINE.largest.less(0.02)),
        contested=ISOTROPY,
    ),
    Claim(
        "Godey et al. 2024",
        "anisotropy is inherent to self-attention: found in the middle layers of every model",
        COSINE.median > 0.1,
        contested=ISOTROPY,
    ),
    Claim(
        "Machina and Mercer 2024",
        "some trained decoders are nearly isotropic",
        COSINE.last < 0.1,
        contested=ISOTROPY,
    ),
    Claim(
        "Timkey and van Schijndel 2021",
        "anisotropy is the work of a few rogue dimensions",
        (values("without_rogue", "post").median < 0.5 * COSINE.median).given(COSINE.largest > 0.1),
    ),
    Claim(
        "Gao et al. 2019, Mu and Viswanath 2018",
        "the cone is a common mean: it vanishes when the mean is taken away",
        values("centred", "post").largest_size.formed(".3f") < 0.1,
    ),
    Claim(
        "Ethayarajh 2019",
        "states of one text are more alike than those of different texts",
        (values("within", "post") - COSINE).median.formed("+.3f") > 0.01,
    ),
    Claim(
        "Razzhigaev et al. 2024",
        "in decoders the first singular value's share is bell-shaped over depth",
        ((SHARE.peak > 0) & (SHARE.peak < 1)).given(
            SHARE.count >= 5, "needs five blocks and covariances"
        ),
    ),
)


@analysis(
    "anisotropy",
    title="How cone-shaped is each layer?",
    about=(
        "The mean cosine between the states of two different tokens: 0 for states that point "
        "everywhere, 1 for one direction. It is exact for all pairs, not estimated from some. "
        "Variants say where it comes from: with position 0 (one very long state in many models) "
        "and for position 0 alone; within one text and between texts; after the common mean is "
        f"taken away; without the {ROGUE} dimensions that add most; with every dimension scaled to "
        "mean 0 and variance 1. Two nulls: directions drawn uniformly (0), and each state's own "
        "entries shuffled, which keeps its length and values but not which dimension holds them. "
        "Beside it: the share of the first singular value, IsoScore (spread of the variance), I(W) "
        "(Mu and Viswanath) and the length of the mean over the mean length."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        by_depth(
            "anisotropy-by-layer",
            "Mean cosine along the residual stream (left: its variants, with the shuffled null) "
            "and at every point of a block (right).",
            Panel("residual stream", LINES, STREAM, "mean cosine", zero=True),
            Panel("all points", ("",), zero=True, nulls=False),
            film=("film-anisotropy", "Mean cosine along the residual stream"),
        ),
        by_rank(
            "anisotropy-shares",
            "What the dimensions add to the mean cosine, largest first and accumulated: a line "
            "that is high at once is the work of a few dimensions.",
            Ranks("_shares", "dimensions, largest first", "share", log="x", null="all alike"),
            wide=False,
        ),
    ),
    claims=CLAIMS,
)
def anisotropy(lab: Session, *, nulls: bool) -> Finding:
    """The mean cosine and its variants at every point, and of tables such as the embeddings."""
    points = by_place(lab.statistics)
    numbers = {place: variants(s, lab.seed, nulls) for place, s in points.items()}
    numbers |= {Place(name): table_variants(table_VD) for name, table_VD in lab.tables.items()}
    finding = Finding(
        series_of(numbers, MEASURES),
        {"_shares": {p: _shares(s) for p, s in points.items() if _has_shares(p, numbers[p])}},
    )
    plain, clean, centred = (finding.values(m, "post") for m in ("", "without_rogue", "centred"))
    answer = (
        f"After the blocks the mean cosine is between {plain.min():.2f} and {plain.max():.2f} "
        f"({plain[-1]:.2f} after the last). Without the {ROGUE} dimensions that add most it is "
        f"{np.median(clean):.2f}, and less the mean {np.median(centred):.3f} (medians over blocks)."
    )
    tables = "".join(f" The {name} has {numbers[Place(name)]['']:.2f}." for name in lab.tables)
    return finding.answered(answer + tables)


def variants(s: Statistics, seed: int = 0, nulls: bool = True) -> dict[str, float]:
    """The mean cosine of the states at one point, "" the plain one, and its relatives."""
    unit_D, squares = s.unit_GD.sum(dim=0), float(s.unit_squares_GD.sum())
    n, rest, pairs = float(s.count_G.sum()), float(s.count_G[REST]), float(s.within_pairs)
    own = float(s.unit_squares_GD[REST].sum())
    total = float(s.unit_GD[REST].square().sum()) - own
    within = float(s.within_square) - own
    between = rest * (rest - 1) - pairs
    numbers = {
        "": moments.mean_cosine(s),
        "first": moments.mean_cosine(s, FIRST),
        "with_first": (float(unit_D.square().sum()) - squares) / (n * (n - 1)),
        "within": within / pairs if pairs else float("nan"),
        "between": (total - within) / between if between else float("nan"),
        "mean_ratio": float(moments.mean(s).norm()) / moments.mean_norm(s),
    }
    if len(s.sample_KD) > 1:
        numbers |= _transformed(s)
        if nulls:
            numbers |= _nulls(s.sample_KD.double(), seed)
    if s.outer_DD is not None:
        values, spectrum = torch.linalg.eigvalsh(s.outer_DD), moments.eigenvalues(s)
        numbers["first_share"] = float(values[-1] / values.sum())
        numbers["first_share/centred"] = float(spectrum[0] / spectrum.sum())
        numbers["isoscore"] = isoscore(torch.from_numpy(spectrum.copy()))
    return numbers


def _transformed(s: Statistics) -> dict[str, float]:
    """Variants that change the states before their lengths are taken: from the reservoir."""
    x_KD = s.sample_KD.double()
    centred_KD = x_KD - moments.mean(s)
    std_D = moments.variance(s).clamp(min=0).sqrt()
    alive_D = std_D > 0
    shares_D = moments.cosine_shares(s)
    kept_D = torch.ones_like(alive_D)
    kept_D[shares_D.topk(min(ROGUE, len(shares_D) // 4)).indices] = False
    return {
        "centred": float(mean_cosine(centred_KD)),
        "without_rogue": float(mean_cosine(x_KD[:, kept_D])),
        "standardised": float(mean_cosine(centred_KD[:, alive_D] / std_D[alive_D])),
    }


def _nulls(x_KD: Tensor, seed: int) -> dict[str, float]:
    entries_KD = x_KD[:SHUFFLED]
    draw = torch.Generator().manual_seed(seed)
    order_KD = torch.rand(entries_KD.shape, generator=draw).argsort(1)
    return {
        "shuffled": float(mean_cosine(entries_KD.gather(1, order_KD))),
        "partition": partition_isotropy(x_KD[:PARTITION]),
    }


def table_variants(table_VD: Tensor) -> dict[str, float]:
    """Those that are defined for the rows of a table [V, D]."""
    table_VD = table_VD.detach().double()
    values = torch.linalg.eigvalsh(table_VD.T @ table_VD)
    return {
        "": float(mean_cosine(table_VD)),
        "centred": float(mean_cosine(table_VD - table_VD.mean(dim=0))),
        "first_share": float(values[-1] / values.sum()),
    }


def _has_shares(place: Place, numbers: dict[str, float]) -> bool:
    return place.kind == "post" and numbers[""] > LEAST


def _shares(s: Statistics) -> Spectrum:
    shares_D = moments.cosine_shares(s).sort(descending=True).values
    ranks_D = np.arange(1, len(shares_D) + 1)
    return Spectrum((shares_D.cumsum(0) / shares_D.sum()).numpy(), null=ranks_D / len(ranks_D))
