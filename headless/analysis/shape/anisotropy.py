"""How much states point one way, by layer and in every variant that sources use."""

import numpy as np
import torch

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import ISOTROPY
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.reservoirs import by_place
from headless.geometry import anisotropy as mean_cosine

ROGUE = 5  # dimensions that are taken out for one variant
SHUFFLED = 512  # states whose entries are shuffled
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
        "and for position 0 alone; within one text; after the common mean is taken away; "
        f"without the {ROGUE} dimensions that add most; with every dimension scaled to "
        "mean 0 and variance 1. Two nulls: directions drawn uniformly (0), and each state's own "
        "entries shuffled, which keeps its length and values but not which dimension holds them."
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
    ),
    claims=CLAIMS,
)
def anisotropy(lab: Session, *, nulls: bool) -> Finding:
    """The mean cosine and its variants at every point, and of tables such as the embeddings."""
    numbers = {p: variants(s, lab.seed, nulls) for p, s in by_place(lab.statistics).items()}
    for name, table_VD in lab.tables.items():
        table_VD = table_VD.detach().double()
        centred = float(mean_cosine(table_VD - table_VD.mean(dim=0)))
        numbers[Place(name)] = {"": float(mean_cosine(table_VD)), "centred": centred}
    finding = Finding(series_of(numbers, MEASURES))
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
    n, pairs = float(s.count_G.sum()), float(s.within_pairs)
    within = float(s.within_square) - float(s.unit_squares_GD[REST].sum())
    numbers = {
        "": moments.mean_cosine(s),
        "first": moments.mean_cosine(s, FIRST),
        "with_first": (float(unit_D.square().sum()) - squares) / (n * (n - 1)),
        "within": within / pairs if pairs else float("nan"),
    }
    if len(s.sample_KD) > 1:
        numbers |= _transformed(s)
        if nulls:
            entries_KD = s.sample_KD[:SHUFFLED].double()
            draw = torch.Generator().manual_seed(seed)
            order_KD = torch.rand(entries_KD.shape, generator=draw).argsort(1)
            numbers["shuffled"] = float(mean_cosine(entries_KD.gather(1, order_KD)))
    if s.outer_DD is not None:
        values = torch.linalg.eigvalsh(s.outer_DD)
        numbers["first_share"] = float(values[-1] / values.sum())
    return numbers


def _transformed(s: Statistics) -> dict[str, float]:
    """Variants that change the states before their lengths are taken: from the reservoir."""
    x_KD = s.sample_KD.double()
    centred_KD = x_KD - moments.mean(s)
    std_D = moments.variance(s).clamp(min=0).sqrt()
    shares_D = moments.cosine_shares(s)
    kept_D = torch.ones_like(std_D, dtype=torch.bool)
    kept_D[shares_D.topk(min(ROGUE, len(shares_D) // 4)).indices] = False
    return {
        "centred": float(mean_cosine(centred_KD)),
        "without_rogue": float(mean_cosine(x_KD[:, kept_D])),
        "standardised": float(mean_cosine((centred_KD / std_D)[:, std_D > 0])),
    }
