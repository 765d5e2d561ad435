"""Alignment and uniformity of states and of the head."""

import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.measure import sample_tokens
from headless.analysis.states.reservoirs import by_place
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.isotropy import class_alignment, isotropic_uniformity, uniformity
from headless.geometry.projection import unit

ROWS = 5000  # vectors for uniformity, which compares all pairs
MEASURES = (
    Measure("uniformity", "uniformity of the states", null="_isotropic"),
    Measure("same_token", "states of one token", null="random_pairs"),
)
NEXT = (
    Measure("", "squared distance to the next token's row"),
    Measure("random_pairs", "squared distance in random pairs"),
)
EXCESS = values("uniformity", *STREAM) - values("_isotropic", *STREAM)
WANG = "Wang and Isola 2020"
CLAIMS = (
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
        "Wang and Isola describe what a contrastive objective asks for in two numbers, of unit "
        "vectors. Alignment: the mean squared distance of vectors that belong together, small is "
        "better; here states of the same token in different contexts, and, at the last point, a "
        "state with the head's row for the token that follows. Its null: the same vectors in "
        "random pairs. Uniformity: how evenly all vectors cover the sphere, log mean "
        "exp(−2 distance²), lower is more even; its null, directions drawn uniformly, is about −4."
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
    claims=CLAIMS,
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
        for place, s in stream.items():
            spread = uniformity(s.sample_KD.double()[:ROWS])
            numbers[place] |= {"uniformity": spread, "_isotropic": isotropic}
        for name, table in lab.tables.items():
            table_VD = table.cpu().double()
            rows_N = torch.linspace(0, len(table_VD) - 1, min(ROWS, len(table_VD))).long()
            numbers[Place(name)] = {"uniformity": uniformity(table_VD[rows_N])}
        numbers[Place()] = {"isotropic": isotropic}
    following: dict[str, float] = {}
    if lab.subject.has_head:
        next_K = sample_tokens(last, lab.batches(), offset=1)
        head_VD = lab.tables.get("head", lab.tables["embedding"])
        following = next_token(last.sample_KD, next_K, head_VD)
    measured = series_of({Place("next_token"): following}, NEXT) | series_of(numbers, MEASURES)
    at_last, answer = numbers[last_place], f"At {last_place}"
    if nulls:
        answer += f" uniformity is {at_last['uniformity']:.2f} (isotropic: {isotropic:.2f}), and"
    answer += (
        f" states of one token are {at_last['same_token']:.2f} apart, random pairs "
        f"{at_last['random_pairs']:.2f} (mean squared distance)."
    )
    if following:
        answer += f" A state is {following['']:.2f} from the head's row of what follows."
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
