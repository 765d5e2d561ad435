"""An analysis of your own: in how many directions do the states of a layer point?

headless analyze --import my_analysis --model runs/demo/headless --analyses "[my_stable_rank]"
"""

import torch

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.geometry import stable_rank

RANK = Measure("", "stable rank", null="gaussian")


@analysis(
    "my_stable_rank",
    title="In how many directions do states point?",
    about=(
        "The stable rank (squared Frobenius norm over squared spectral norm) of a sample of states "
        "at each point of the residual stream, beside that of as many Gaussian vectors."
    ),
    needs={"text"},
    cheap=True,
    figures=[
        by_depth(
            "my-stable-rank",
            "Stable rank of the states along the residual stream. Dashed: Gaussian vectors.",
            Panel("residual stream", ("",), STREAM, "stable rank", log="y"),
        )
    ],
    claims=[
        Claim(
            "my notebook",
            "after the last block one direction holds more than a tenth of the squared length",
            values("", "post").last < 10,
            kind="own",
        )
    ],
)
def my_stable_rank(lab: Session, *, nulls: bool) -> Finding:
    found = {}
    for point, statistics in lab.statistics.items():
        if point.component in STREAM:
            states_KD = statistics.sample_KD.double()
            noise = torch.Generator().manual_seed(lab.seed)
            found[Place.parse(point.name)] = {"": float(stable_rank(states_KD))}
            if nulls:
                noise_KD = torch.randn(states_KD.shape, generator=noise, dtype=torch.float64)
                found[Place.parse(point.name)]["gaussian"] = float(stable_rank(noise_KD))
    finding = Finding(series_of(found, [RANK]))
    ranks = finding.values("", "post")
    return finding.answered(
        f"After the blocks the stable rank is between {ranks.min():.1f} and {ranks.max():.1f}."
    )
