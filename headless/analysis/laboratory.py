"""Which analyses there are, and one pass for all of them.

The states of a model are accumulated once; the weights need no text; some analyses run the model
again on a few sequences. An analysis that does not fit a model (one block, no gains) is left out
and named.
"""

from collections.abc import Sequence

from headless.analysis.corpus.frequency import frequency
from headless.analysis.corpus.spectrum import corpus
from headless.analysis.course.convergence import convergence, settling
from headless.analysis.course.phases import phases
from headless.analysis.course.switch import switch
from headless.analysis.head.bottleneck import bottleneck
from headless.analysis.head.copying import copying
from headless.analysis.head.neurons import neurons
from headless.analysis.head.ngrams import ngrams
from headless.analysis.head.unigram import unigram
from headless.analysis.interventions.ablation import outlier_ablation
from headless.analysis.interventions.gradients import gradients
from headless.analysis.interventions.permutation import permutation
from headless.analysis.places.latents import attention_and_mlp, latents
from headless.analysis.places.positions import positions, sequence
from headless.analysis.places.repeated import repeated
from headless.analysis.record import Finding
from headless.analysis.registry import OWN, Analysis, Need
from headless.analysis.session import Preset, Session
from headless.analysis.shape.anisotropy import alignment_uniformity, anisotropy
from headless.analysis.shape.cone import cone
from headless.analysis.shape.distributions import activations, hidden_activations
from headless.analysis.shape.norms import norms
from headless.analysis.shape.outliers import outliers
from headless.analysis.shape.spread import covariance_spectra
from headless.analysis.weights.noise import noise
from headless.analysis.weights.sizes import gains, sizes
from headless.analysis.weights.spectra import circuits, movement, spectra
from headless.analysis.weights.tables import tables
from headless.analysis.weights.values import weight_values
from headless.errors import HeadlessError

# In the order of the page.
ANALYSES: tuple[Analysis, ...] = (
    *(tables, spectra, noise, circuits, weight_values, movement, gains, sizes),
    *(corpus, frequency, unigram, ngrams, copying, neurons, bottleneck),
    *(cone, anisotropy, alignment_uniformity),
    *(activations, hidden_activations),
    *(outliers, outlier_ablation, covariance_spectra, norms),
    *(latents, attention_and_mlp, positions, sequence, repeated),
    *(gradients, permutation),
    *(phases, switch, settling, convergence),
)


def select(names: Sequence[str] | None = None, preset: Preset = "full") -> list[str]:
    """Names in the order of the page, the user's own last; all of a preset for None.

    Raises:
        HeadlessError: an unknown name, or an analysis that the preset does not have.
    """
    every = (*ANALYSES, *OWN.values())
    known = dict.fromkeys(one.option for one in every)
    there = {one.option for one in every if preset == "full" or one.cheap}
    for name in names or ():
        if name not in known:
            raise HeadlessError(f"there is no analysis {name!r}; there are {', '.join(known)}")
    for name in names or ():
        if name not in there:
            raise HeadlessError(f"{name} takes a while: it is in --preset full alone")
    return [name for name in known if name in (there if names is None else names)]


def needing(needs: set[Need], names: Sequence[str]) -> list[str]:
    """Those of the names that need one of these."""
    every = (*ANALYSES, *OWN.values())
    found = {one.option for one in every if one.needs & needs}
    return [name for name in names if name in found]


def reads_last_alone(names: Sequence[str]) -> bool:
    """Whether none of them reads statistics of the states but those of what the head reads."""
    every = (*ANALYSES, *OWN.values())
    return all(one.states != "all" for one in every if one.option in names)


def analyze(session: Session, names: Sequence[str]) -> tuple[list[Finding], dict[str, str]]:
    """Run analyses, in the form of the session's preset.

    Returns:
        The findings, and for each analysis that could not be made the reason.
    """
    findings: list[Finding] = []
    left_out: dict[str, str] = {}
    if not session.subject.has_head:
        left_out["LM head"] = session.subject.why_no_head
    for done, name in enumerate(names):
        session.report(name, done, len(names))
        try:
            findings += findings_of(name, session)
        except HeadlessError as error:
            left_out[name] = str(error)
    return findings, left_out


def findings_of(name: str, session: Session) -> list[Finding]:
    """Of the analyses of one name, in the form of the session's preset.

    Raises:
        HeadlessError: one does not fit the model.
    """
    full = session.preset == "full"
    made = [
        one(session, nulls=full)
        for one in (*ANALYSES, *OWN.values())
        if one.option == name and (full or one.cheap) and (one.claims or not session.claims_only)
    ]
    return [finding for finding in made if finding is not None]
