"""Everything at once: which analyses there are, what each needs, and one pass for all of them.

The states of a model are accumulated once; the weights need no text; some analyses run the model
again on a few sequences. An analysis that does not fit a model (one block, no gains) is left out
and named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headless.analysis.corpus.frequency import frequency
from headless.analysis.corpus.spectrum import corpus
from headless.analysis.finding import Finding
from headless.analysis.interventions.ablation import outlier_ablation
from headless.analysis.interventions.gradients import gradients
from headless.analysis.interventions.permutation import permutation
from headless.analysis.places.latents import attention_and_mlp, latents
from headless.analysis.places.positions import positions, sequence
from headless.analysis.places.repeated import repeated
from headless.analysis.registry import OWN
from headless.analysis.registry import Analysis as Converted
from headless.analysis.session import Preset, Session
from headless.analysis.shape.alignment import alignment_uniformity
from headless.analysis.shape.anisotropy import anisotropy
from headless.analysis.shape.cone import cone
from headless.analysis.shape.gaussianity import activations
from headless.analysis.shape.neurons import head_outputs, hidden_activations
from headless.analysis.shape.norms import norms
from headless.analysis.shape.outliers import outliers
from headless.analysis.shape.spread import covariance_spectra
from headless.analysis.weights.circuits import circuits
from headless.analysis.weights.gains import gains
from headless.analysis.weights.movement import movement
from headless.analysis.weights.noise import noise
from headless.analysis.weights.sizes import sizes
from headless.analysis.weights.spectra import spectra
from headless.analysis.weights.tables import tables
from headless.analysis.weights.values import weight_values
from headless.errors import HeadlessError

Run = Callable[[Session], list[Finding]]
# Analyses on `record.Finding`, in the order of the page; of one option they come before the others.
CONVERTED: tuple[Converted, ...] = (
    tables,
    spectra,
    noise,
    circuits,
    weight_values,
    movement,
    gains,
    sizes,
    corpus,
    frequency,
    cone,
    anisotropy,
    alignment_uniformity,
    covariance_spectra,
    activations,
    hidden_activations,
    head_outputs,
    outliers,
    outlier_ablation,
    norms,
    latents,
    attention_and_mlp,
    positions,
    sequence,
    repeated,
    gradients,
    permutation,
)


@dataclass(frozen=True)
class Analysis:
    """One row of the laboratory.

    Args:
        name: to select it by.
        words: what it shows.
        run: makes the findings.
        needs_text: whether it needs sequences; the others need weights alone.
        cheap: makes those of the cheap preset: some of the same scalars, without null models,
            further runs of the model or decompositions of anything large; None: it has none.
    """

    name: str
    words: str
    run: Run = lambda session: []
    needs_text: bool = True
    cheap: Run | None = None


ANALYSES = (
    Analysis(
        "weights",
        "spectra, noise, values, gains and sizes of every matrix",
        needs_text=False,
    ),
    Analysis("corpus", "the text's own token covariance"),
    Analysis("frequency", "embeddings against token frequency"),
    Analysis("cone", "angles and anisotropy"),
    Analysis("anisotropy", "mean cosine by layer, in its variants"),
    Analysis("alignment", "alignment and uniformity"),
    Analysis("histograms", "distributions of states, neurons and heads"),
    Analysis("outliers", "outlier dimensions"),
    Analysis("ablation", "the loss without the largest dimensions"),
    Analysis("covariance", "spectra of activations"),
    Analysis("norms", "norms by layer and position, and the first token"),
    Analysis("latents", "principal components"),
    Analysis("separation", "attention against MLP"),
    Analysis("positions", "helices, and position against context"),
    Analysis("repeated", "sequences of one token"),
    Analysis("gradients", "gradients of one example"),
    Analysis("permutation", "blocks in another order"),
)
NAMES = tuple(analysis.name for analysis in ANALYSES)


def select(names: Sequence[str] | None = None, preset: Preset = "full") -> list[Analysis]:
    """The analyses of some names, in the order of the page; all of a preset for None.

    Raises:
        HeadlessError: an unknown name, or an analysis that the preset does not have.
    """
    cheap = {one.option for one in (*CONVERTED, *OWN.values()) if one.cheap}
    own = [Analysis(one.option, one.title, needs_text="text" in one.needs) for one in OWN.values()]
    known = tuple(a.name for a in (*ANALYSES, *own))
    there = [a for a in (*ANALYSES, *own) if preset == "full" or a.cheap or a.name in cheap]
    if names is None:
        return there
    if unknown := [name for name in names if name not in known]:
        raise HeadlessError(f"there is no analysis {unknown[0]!r}; there are {', '.join(known)}")
    if dear := [name for name in names if name not in [a.name for a in there]]:
        raise HeadlessError(f"{dear[0]} takes a while: it is in --preset full alone")
    return [analysis for analysis in there if analysis.name in names]


def analyze(session: Session, analyses: Sequence[Analysis]) -> tuple[list[Finding], dict[str, str]]:
    """Run analyses, in the form of the session's preset.

    Returns:
        The findings, and for each analysis that could not be made the reason.
    """
    findings: list[Finding] = []
    left_out: dict[str, str] = {}
    if not session.subject.has_head:
        left_out["LM head"] = session.subject.why_no_head
    for done, analysis in enumerate(analyses):
        session.report(analysis.name, done, len(analyses))
        if analysis.needs_text and session.subject.sequences_NT is None:
            left_out[analysis.name] = "no text was given"
            continue
        try:
            findings += findings_of(analysis, session)
        except HeadlessError as error:
            left_out[analysis.name] = str(error)
    return findings, left_out


def findings_of(analysis: Analysis, session: Session) -> list[Any]:
    """Of one analysis, in the form of the session's preset.

    Raises:
        HeadlessError: it does not fit the model.
    """
    full = session.preset == "full"
    converted = (*CONVERTED, *OWN.values())
    own = [one for one in converted if one.option == analysis.name and (full or one.cheap)]
    if session.claims_only:
        own = [one for one in own if one.claims]
    made = [one(session, nulls=full) for one in own]
    rest = analysis.run if full else analysis.cheap
    return [*(one for one in made if one is not None), *(rest(session) if rest else [])]
