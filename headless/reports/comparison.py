"""What was compared, before it is shown."""

from dataclasses import dataclass, field
from pathlib import Path

from headless.reports.finetunings import Finetuning
from headless.reports.groups import Group


@dataclass(frozen=True)
class Comparison:
    """What was compared: the groups of runs, what is unfair about it, and where the page is.

    Args:
        groups: of runs.
        warnings: what is unfair about the comparison.
        report: the page's path.
        tuned: the groups that began from a trained model, where others did not: they have a
            section of their own.
        finetunings: classifiers, likewise.
        baseline: what the other groups are measured against; None where there are none.
        left_out: in words, what was found in a folder and not compared.
    """

    groups: list[Group]
    warnings: list[str]
    report: Path
    tuned: list[Group] = field(default_factory=list)
    finetunings: list[Finetuning] = field(default_factory=list)
    baseline: Group | None = None
    left_out: list[str] = field(default_factory=list)
