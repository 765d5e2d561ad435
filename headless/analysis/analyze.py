"""The verb: the inside of a language model."""

import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from headless.analysis.course.convergence import states_of
from headless.analysis.courses import Checkpoints, States, courses_of, logged
from headless.analysis.laboratory import analyze as run_analyses
from headless.analysis.laboratory import needing, reads_last_alone, select
from headless.analysis.over_training import over_training
from headless.analysis.places.latents import check_umap
from headless.analysis.record import Place
from headless.analysis.report import FigureFormat, check_output, write_report
from headless.analysis.session import Session, Subject, check_blocks, rows_of
from headless.analysis.subject import OpenModel, before_training, kept_checkpoints, open_subject
from headless.analysis.tables import in_words, tally
from headless.analysis.twin import ask_twin
from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.models.backbone import embedding_table, is_custom
from headless.progress import Display, Report
from headless.runs.run import Run
from headless.training.checkpoint_io import is_run


@dataclass(repr=False)
class Inside:
    """What `analyze` found; a notebook shows its answers."""

    name: str  #: of the model
    findings: list[Any]  #: in the order in which they are read
    left_out: dict[str, str]  #: analyses that do not fit the model, and why
    about: list[Any]  #: rows for a page's head: model, text, tokens, versions
    twin: str = ""  #: what the random weights are that the claims were asked of as well
    page: Path | None = None  #: once it is saved

    def answers(self) -> list[tuple[str, str]]:
        """Each finding's title and answer, and what was left out."""
        return [
            *((f.title, f.answer or f"{len(f.scalars)} numbers.") for f in self.findings),
            *(("left out", f"{name}: {reason}") for name, reason in self.left_out.items()),
        ]

    @property
    def scalars(self) -> dict[str, float]:
        """Every number by its key in analysis.json."""
        return {name: value for one in self.findings for name, value in one.scalars.items()}

    def claims(self) -> str:
        """How many claims hold, in words; empty where none was asked."""
        claims = [claim for finding in self.findings for claim in finding.claims]
        return " ".join(in_words(tally(claims), self.twin)) if claims else ""

    def save(
        self,
        directory: str | Path,
        *,
        overwrite: bool = False,
        formats: Sequence[FigureFormat] = ("svg", "png"),
        report: Report = lambda what, done, total: None,
    ) -> Path:
        """Write analysis.html, analysis.json and figures/; returns the page."""
        check_output(Path(directory), overwrite)
        self.page = write_report(
            f"Inside {self.name}",
            self.findings,
            Path(directory),
            about=self.about,
            twin=self.twin,
            formats=formats,
            report=report,
        )
        return self.page

    def __repr__(self) -> str:
        lines = [f"{title}: {answer}" for title, answer in self.answers()]
        return "\n".join([f"Inside {self.name}", *lines, self.claims()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<dt><b>{html.escape(title)}</b></dt><dd>{html.escape(answer)}</dd>"
            for title, answer in self.answers()
        )
        title, claims = html.escape(f"Inside {self.name}"), html.escape(self.claims())
        return f"<h3>{title}</h3><dl>{rows}</dl><p>{claims}</p>"


@isolated()
def analyze(
    model: "str | Path | Run | OpenModel",
    output: Path | None = None,
    data: Path | None = None,
    analyses: str | list[str] | None = None,
    preset: Literal["cheap", "full"] = "full",
    tokens: int = 65_536,
    length: int | None = None,
    split: Literal["train", "validation"] = "validation",
    steps: Literal["last", "all"] = "last",
    blocks: list[int] | None = None,
    umap: bool = False,
    random_twin: bool = True,
    seed: int = 0,
    device: str = "auto",
    trust_remote_code: bool = False,
    formats: list[Literal["svg", "png", "pdf"]] = ["svg", "png"],  # noqa: B006 - read only
    overwrite: bool = False,
    *,
    progress: bool | Report = False,
) -> Inside:
    """Look inside any model: cones, spectra, outliers, helices, each with its number and null.

    Args:
        model: a run directory, a checkpoint, a Hugging Face directory or a hub name.
        output: a directory to write analysis.html, analysis.json and figures/ to; of a run the
            command's default is its own directory's "analysis", from where `headless compare`
            takes it.
        data: a prepared dataset with the model's tokenizer; a run's own where it is there. Without
            any, the weights alone are looked at.
        analyses: some of them by name, as [cone, norms]; all of the preset by default.
        preset: "cheap" are the numbers that a run follows while it is trained (pretrain
            --laboratory): of the weights as they are and the residual stream, in a second or two.
        tokens: how many of the text are read.
        length: of the sequences; as long as the model was trained with, 512 at the most.
        split: of the dataset.
        steps: "all" repeats the analyses at every kept checkpoint of a run (pretrain
            --checkpoint.keep true) and draws each number over training.
        blocks: whose states are looked at, as [0, 5, 11]; all by default.
        umap: lay states out by UMAP as well, which takes minutes (pip install umap-learn).
        random_twin: ask every reported finding of the same shape with random weights as well (of a
            run: of its own before training): what holds there too says nothing about training. It
            adds about a third to the time.
        seed: of the null models.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        formats: of the figures beside the page.
        overwrite: replace an analysis that is there already.
        progress: show it, or a function that gets (what is done, how much of it, in all).
    """
    _check(tokens, length, umap)
    chosen = select([analyses] if isinstance(analyses, str) else analyses, preset)
    if output is not None:
        check_output(Path(output), overwrite)
    text = (data, tokens, length, split, device, trust_remote_code)
    subject = open_subject(model, *text)
    check_blocks(subject.backbone, blocks)
    opened: Any = model
    place: str = os.fspath(getattr(opened, "place", opened))
    with Display(progress) as display:

        def report(what: str, done: int, total: int) -> None:
            display.report("states" if what == "states" else "laboratory", done, total, what)

        session_on = partial(
            Session,
            seed=seed,
            report=report,
            preset=preset,
            spread=False,
            umap=umap,
            blocks=blocks,
            last_alone=reads_last_alone(chosen),
        )

        random_twin = random_twin and not is_custom(subject.backbone)  # only its class draws one
        untrained = before_training(place, subject) if steps == "all" or random_twin else None
        session = session_on(subject)
        session.courses = logged(Run(place)) if os.path.isdir(place) and is_run(place) else None
        late: list[str] = []
        by_step: dict[int, list[Any]] = {}
        if steps == "all":
            earlier, last = kept_checkpoints(place)
            subjects: dict[int, Any] = {} if untrained is None else {0: untrained}
            subjects |= earlier
            sessions = (
                (step, session_on(open_subject(str(one), *text) if isinstance(one, Path) else one))
                for step, one in subjects.items()
            )
            late = needing({"courses"}, chosen)  # of what the others find
            chosen = [name for name in chosen if name not in late]
            by_step = _before(session, last, sessions, chosen)
        findings, left_out = run_analyses(session, chosen)
        twin = ""
        if random_twin:
            findings, twin = ask_twin(findings, session, chosen, untrained)
        if steps == "all":
            by_step[last] = findings
            switched_at = None if session.courses is None else session.courses.switched_at
            session.courses = courses_of(by_step, switched_at)
            of_all, reasons_of_all = run_analyses(session, late)
            left_out |= reasons_of_all
            findings = [over_training(by_step, switched_at), *of_all, *findings]
        if analyses is None:  # those of runs are missed where they were asked for
            for name in needing({"courses", "checkpoints"}, list(left_out)):
                del left_out[name]
        if not findings:
            reasons = (left_out[name] for name in chosen if name in left_out)
            raise HeadlessError(
                f"nothing could be analysed: {next(reasons, 'nothing was asked for')}"
            )
        inside = Inside(subject.name, findings, left_out, _about(place, subject, left_out), twin)
        if output is not None:
            inside.save(output, overwrite=overwrite, formats=formats, report=report)
    return inside


def _before(
    session: Session, step: int, sessions: Iterable[tuple[int, Session]], names: Sequence[str]
) -> dict[int, list[Any]]:
    """The findings at each step before the last; what a checkpoint is compared with goes to each
    of them and to the last, whose session is the first argument."""
    compared = "convergence" in names and session.subject.sequences_NT is not None
    final = states_of(session) if compared else {}
    before: dict[Place, States] = {}
    rows: Tensor | None = None
    earlier = 0
    found = {}
    for now, one in chain(sessions, [(step, session)]):
        one.checkpoints = Checkpoints(final, before, rows, now - earlier)
        if one is not session:
            before = states_of(one) if compared else {}
            rows, earlier = one.tables["embedding"].detach().clone(), now
            found[now] = run_analyses(one, names)[0]
    return found


def _about(place: str, subject: Subject, left_out: dict[str, str]) -> list[tuple[str, str]]:
    """What a reader of the page must know: terms and texts."""
    config: Any = subject.backbone.config
    found = [
        ("model", place),
        ("backbone", f"{config.model_type} {config.num_hidden_layers} x {config.hidden_size}"),
    ]
    if subject.sequences_NT is not None:
        number, length = subject.sequences_NT.shape
        found.append(("text", f"{subject.data}, {number:,} sequences of {length} tokens"))
    table_VD = embedding_table(subject.weights)
    if (every := rows_of(table_VD).step) > 1:
        found.append(("tables", f"every {every}th of {len(table_VD):,} rows"))
    found += [("before training", subject.beginning)] if subject.beginning else []
    return [*found, *((name, f"left out: {reason}") for name, reason in left_out.items())]


def _check(tokens: int, length: int | None, umap: bool) -> None:
    if umap:
        check_umap()
    for option, value in (("tokens", tokens), ("length", length)):
        if value is not None and value < 1:
            raise HeadlessError(f"{option} must be at least 1, got {value}")
