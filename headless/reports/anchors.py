"""What simple models of the text score: an arm that does not beat them has learned little.

`headless prepare` computes them and a run's summary has them as `anchors`, in nats per token of the
validation text: of the uniform distribution over the vocabulary, of the training text's unigram
distribution, and of its bigrams, interpolated with the unigrams.
"""

from collections.abc import Sequence

from headless.pages.numbers import decimals
from headless.pages.page import Column
from headless.reports.groups import OVER, Group, runs_of
from headless.reports.tables import Quantity, Table
from headless.runs.run import Run
from headless.structured import is_number

ANCHORS = ("uniform", "unigram", "bigram")  # from the weakest to the strongest


def anchors_of(groups: Sequence[Group]) -> dict[str, float]:
    """The nats of the anchors that all runs which have some agree on."""
    known = [anchors for run in runs_of(groups) if (anchors := run.summary.get("anchors"))]
    values = {name: [one.get(name) for one in known] for name in ANCHORS}
    return {
        name: float(several[0])
        for name, several in values.items()
        if several and all(is_number(v) and abs(v - several[0]) < 1e-6 for v in several)
    }


def anchor_table(groups: Sequence[Group]) -> Table | None:
    """How far each arm is from each anchor; None where no run knows one."""
    common = anchors_of(groups)
    columns = [
        Quantity(OVER + name, name, decimals(common.get(name), 3), "nll, less the anchor's")
        for name in ANCHORS
        if any(group.number(OVER + name) for group in groups)
    ]
    nll = Quantity("val/nll", "nll", "nats/token")
    return Table(Column("objective", "", "left"), [nll, *columns], groups) if columns else None


def unbeaten(run: Run) -> str | None:
    """The weakest anchor that a run's last validation is not better than."""
    nll, anchors = run.value("val/nll"), run.summary.get("anchors") or {}
    if nll is None:
        return None
    return next((a for a in ANCHORS if is_number(anchors.get(a)) and nll >= anchors[a]), None)


def best_at_first(run: Run) -> bool:
    """Whether none of its later validations was better than the first."""
    _, nll = run.curve("val/nll", "tokens")
    return len(nll) > 1 and nll[0] <= min(nll[1:])
