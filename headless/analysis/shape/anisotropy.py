"""How much states point one way, by layer and in every variant; alignment and uniformity."""

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import ISOTROPY
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.measure import sample_tokens
from headless.analysis.states.reservoirs import by_place
from headless.geometry import anisotropy as mean_cosine
from headless.geometry import class_alignment, isotropic_uniformity, uniformity, unit

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
        "The mean cosine between the states of two different tokens, exact for all pairs: 0 for "
        "states that point everywhere, 1 for one direction. Variants say where it comes from: "
        "with position 0 (one very long state in many models) and for it alone; within one "
        f"text; after the common mean is taken away; without the {ROGUE} dimensions that add "
        "most; with every dimension scaled to mean 0 and variance 1. Two nulls: directions "
        "drawn uniformly (0), and each state's own entries shuffled, which keeps its length and "
        "values but not which dimension holds them."
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
        numbers[Place(name)] = {
            "": float(mean_cosine(table_VD)),
            "centred": float(mean_cosine(table_VD - table_VD.mean(dim=0))),
        }
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


ROWS = 5000  # vectors for uniformity, which compares all pairs
EVENNESS = (
    Measure("uniformity", "uniformity of the states", null="_isotropic"),
    Measure("same_token", "states of one token", null="random_pairs"),
)
NEXT = (
    Measure("", "squared distance to the next token's row"),
    Measure("random_pairs", "squared distance in random pairs"),
)
EXCESS = values("uniformity", *STREAM) - values("_isotropic", *STREAM)
WANG = "Wang and Isola 2020"
WANG_CLAIMS = (
    Claim(WANG, "a contrastive objective spreads states evenly", EXCESS.last < 1.0),
    Claim(
        WANG,
        "and brings together what belongs together",
        (values("random_pairs", "next_token") - values("", "next_token")).only > 0.1,
    ),
)


@analysis(
    "alignment",
    name="alignment_uniformity",
    title="Alignment and uniformity",
    about=(
        "What a contrastive objective asks for in two numbers, of unit vectors. Alignment: the "
        "mean squared distance of vectors that belong together, small is better; here states of "
        "the same token in different contexts, and, at the last point, a state with the head's "
        "row for the token that follows. Its null: the same vectors in random pairs. "
        "Uniformity: log mean exp(−2 distance²) of all pairs, lower is more even; its null, "
        "directions drawn uniformly, is about −4."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        by_depth(
            "alignment-uniformity",
            "Along the stream: uniformity (left; dashed: isotropic) and alignment of states of "
            "one token in different contexts (right; dashed: random pairs).",
            Panel("uniformity", ("uniformity",), STREAM, "log mean exp(−2 distance²)"),
            Panel("alignment", ("same_token",), STREAM, "mean squared distance"),
        ),
    ),
    claims=WANG_CLAIMS,
)
def alignment_uniformity(lab: Session, *, nulls: bool) -> Finding:
    """Alignment and uniformity along the stream, and of the tables."""
    stream = by_place(lab.statistics, *STREAM)
    last_place, last = list(stream.items())[-1]
    tokens_K = sample_tokens(last, lab.batches())
    numbers = {}
    for place, s in stream.items():
        x_KD = s.sample_KD.double()
        numbers[place] = {
            "random_pairs": 2.0 - 2.0 * float(mean_cosine(x_KD)),
            "same_token": class_alignment(x_KD, tokens_K),
        }
    if nulls:
        isotropic = isotropic_uniformity(last.sample_KD.shape[1])
        numbers[Place()] = {"isotropic": isotropic}
        for place, s in stream.items():
            spread = uniformity(s.sample_KD[:ROWS])
            numbers[place] |= {"uniformity": spread, "_isotropic": isotropic}
        for name, table_VD in lab.tables.items():
            rows_N = torch.linspace(0, len(table_VD) - 1, min(ROWS, len(table_VD))).long()
            numbers[Place(name)] = {"uniformity": uniformity(table_VD.cpu()[rows_N])}
    following: dict[str, float] = {}
    if lab.subject.has_head:
        next_K = sample_tokens(last, lab.batches(), offset=1)
        whole = lab.whole_tables
        head_VD = whole.get("head", whole["embedding"])
        following = next_token(last.sample_KD, next_K, head_VD)
    measured = series_of({Place("next_token"): following}, NEXT) | series_of(numbers, EVENNESS)
    at_last = numbers[last_place]
    answer = (
        f"At {last_place} states of one token are {at_last['same_token']:.2f} apart, random pairs "
        f"{at_last['random_pairs']:.2f} (mean squared distance)."
    )
    if following:
        answer += f" A state is {following['']:.2f} from the head's row of what follows."
    if nulls:
        answer += f" Uniformity is {at_last['uniformity']:.2f} (isotropic: {isotropic:.2f})."
    return Finding(measured).answered(answer)


def next_token(state_KD: Tensor, next_K: Tensor, head_VD: Tensor) -> dict[str, float]:
    """Mean squared distance of unit states and unit rows of what follows (-1: nothing does), and
    in random pairs."""
    known_K = next_K >= 0
    rows_ND = head_VD[next_K[known_K].to(head_VD.device)].to(state_KD.device)
    state_ND, row_ND = unit(state_KD[known_K]), unit(rows_ND)
    if not len(state_ND):
        return {}
    return {
        "": 2.0 - 2.0 * float((state_ND * row_ND).sum(dim=1).mean()),
        "random_pairs": 2.0 - 2.0 * float(state_ND.mean(dim=0) @ row_ND.mean(dim=0)),
    }
