"""What `headless analyze` wrote of each run, as a comparison reads it: numbers, arrays, claims.

Analyses may be of other versions, presets and families than each other: whatever one lacks is
None, and nothing is looked up that is not asked for.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.pages.numbers import is_number
from headless.reports.groups import Group
from headless.reports.reading import Run


def findings_of(run: Run) -> dict[str, dict[str, Any]]:
    """A run's findings by name; none where it was not analysed."""
    found = run.analysis.get("findings") if run.analysis else None
    return {f["name"]: f for f in found or () if isinstance(f, dict) and "name" in f}


def analysed(group: Group) -> list[Run]:
    """The runs of a group that were analysed."""
    return [run for run in group.runs if findings_of(run)]


def scalar_of(run: Run, name: str) -> float | None:
    """A number by its name, whichever finding holds it."""
    for finding in findings_of(run).values():
        value = (finding.get("scalars") or {}).get(name)
        if is_number(value):
            return float(value)
    return None


def array_of(run: Run, finding: str, name: str) -> np.ndarray | None:
    """An array of a finding, NaN where an entry was not finite; None where it is not there."""
    found = (findings_of(run).get(finding, {}).get("arrays") or {}).get(name)
    if not isinstance(found, list) or not found:
        return None
    try:
        values = np.array(found, dtype=float)
    except (TypeError, ValueError):  # names, or rows of several lengths
        return None
    return values if values.size else None


def by_block(run: Run, pattern: str) -> np.ndarray | None:
    """Numbers of the blocks [L], from the first; `*` in the pattern stands for the block."""
    finding = findings_of(run).get(pattern.split("/")[0])
    if finding is None:
        return None
    form = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))
    found = {
        int(match.group(1)): float(value) if is_number(value) else np.nan
        for name, value in (finding.get("scalars") or {}).items()
        if (match := form.fullmatch(name))
    }
    return np.array([found[block] for block in sorted(found)]) if found else None


def last_spectrum(run: Run) -> np.ndarray | None:
    """Eigenvalues of the covariance of what the head sees: after the final norm, or the last
    block."""
    arrays = findings_of(run).get("covariance_spectra", {}).get("arrays") or {}
    posts = sorted(name for name in arrays if re.fullmatch(r"post/\d+/eigenvalues", name))
    for name in ("norm_f/eigenvalues", *reversed(posts)):
        if (values := array_of(run, "covariance_spectra", name)) is not None:
            return values
    return None


def angle_density(run: Run, name: str) -> np.ndarray | None:
    """Density of a set's angles to its mean direction, per degree, in bins of equal width over
    0 to 180 degrees."""
    density = array_of(run, "cone", f"{name}/angle_density")
    angles = array_of(run, "cone", f"{name}/angles")
    if density is None and angles is not None:
        density, _ = np.histogram(angles, np.arange(0, 181, 2.0), density=True)
    return density


Claim = tuple[str, str, str]  # of which finding, whose, what


def verdicts(group: Group) -> dict[Claim, list[tuple[bool, str]]]:
    """What each run of a group says to each claim that could be asked of it, with the criterion."""
    found: dict[Claim, list[tuple[bool, str]]] = {}
    for run in analysed(group):
        for name, finding in findings_of(run).items():
            for claim in finding.get("claims") or ():
                if claim.get("kind") == "own" or claim.get("of_text"):
                    continue  # no finding of the literature on models
                key = (name, str(claim.get("source", "")), str(claim.get("text", "")))
                if isinstance(claim.get("agrees"), bool):
                    answer = (claim["agrees"], str(claim.get("criterion", "")))
                    found.setdefault(key, []).append(answer)
    return found


def disputed(groups: Sequence[Group]) -> list[Claim]:
    """Claims that two groups or more could be asked and do not answer alike."""
    answers = [verdicts(group) for group in groups]
    claims = dict.fromkeys(claim for found in answers for claim in found)
    different = []
    for claim in claims:
        shares = {
            round(float(np.mean([agrees for agrees, _ in found[claim]])), 6)
            for found in answers
            if claim in found
        }
        if len(shares) > 1:
            different.append(claim)
    return different
