"""From a corpus in a package to a page that compares two language models, in one process.

    python scripts/demo.py [--runs runs/demo] [--full]

The report is there after the first validation and is renewed while the models train. What is there
is reused; a training that was stopped goes on. With --full: twice the steps, a fine-tuned head
for the headless model, and everything that the laboratory knows, asked of random twins as well.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import demo_corpus
import demo_evaluation

import headless
from headless.progress import Display
from headless.reports import terminal

ROOT = Path(__file__).parents[1]
TEXT, DATA = Path("data/demo-text"), Path("data/demo")
EVALUATION = Path("data/demo-evaluation")
OBJECTIVES = ("vanilla", "headless")
FULL_STEPS = 320
RENEW_SECONDS = 30.0  # between two reports while a model trains
PROMPT = "HAMLET. To "


class Report:
    """The page, from its first numbers on."""

    def __init__(self, runs: Path) -> None:
        self.runs, self.written, self.compared = runs, 0.0, None

    @property
    def page(self) -> Path:
        return self.runs / "report" / "report.html"

    def write(self, refresh_seconds: int = 0) -> Any:
        """The two, and every run of your own beside them."""
        own = [self.runs / objective for objective in OBJECTIVES]
        others = sorted(summary.parent for summary in self.runs.glob("*/summary.json"))
        runs = [run for run in own if (run / "metrics.jsonl").is_file()]
        runs += [run for run in others if run not in own]
        first = not self.written
        comparison = headless.compare(runs)
        comparison.save(self.page.parent, overwrite=True, refresh_seconds=refresh_seconds)
        self.written = time.monotonic()
        if first:
            say(f"{self.page} is there, and is renewed as the models train")
            show(self.page)
        return comparison

    def renew(self, run: object) -> None:
        """After a validation, unless it is new."""
        if not self.written or time.monotonic() - self.written >= RENEW_SECONDS:
            self.write(refresh_seconds=round(RENEW_SECONDS) // 2)


def say(words: str) -> None:
    """A line on standard error, as progress is."""
    print(f"demo: {words}", file=sys.stderr, flush=True)


def show(page: Path) -> None:
    """Open it, where somebody sits before a screen."""
    opener = {"darwin": "open", "linux": "xdg-open"}.get(sys.platform)
    has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY", "") + os.environ.get(
        "WAYLAND_DISPLAY", ""
    )
    if opener and has_screen and sys.stdout.isatty():
        try:
            subprocess.Popen([opener, str(page)], stdout=-3, stderr=-3, start_new_session=True)
        except OSError:
            pass  # the path is printed


def is_finished(run: Path) -> bool:
    """Whether there is such a run, trained to its end."""
    return (run / "summary.json").is_file() and headless.Run(run).finished


def train(runs: Path, objective: str, report: Report, changes: Mapping[str, str]) -> None:
    """A run that is finished is reused; one that was stopped goes on."""
    if is_finished(runs / objective):
        say(f"reusing {runs / objective}")
        return
    say(f"training {objective}")
    overrides = {"run.root": str(runs), "run.resume": True, **changes}
    config = ROOT / f"configs/demo/{objective}.yaml"
    headless.pretrain(config, overrides, progress=True, on_validation=report.renew)


def evaluate(runs: Path, objective: str) -> None:
    """Last words and minimal pairs; the headless model as the paper decodes, too."""
    if (runs / objective / "evaluations.jsonl").is_file():
        return
    tasks = [
        f"lambada:{EVALUATION}/last_words.jsonl",
        f"blimp:{EVALUATION}/minimal_pairs.jsonl",
        f"text:{DATA}",
    ]
    say(f"evaluating {objective}")
    with Display(True) as display:
        for head in ("auto", "tied") if objective == "headless" else ("auto",):
            model = headless.load(runs / objective, head=head)
            headless.evaluate(model, tasks, batch_size=32, progress=display.report)


def look_inside(runs: Path, objective: str, full: bool) -> None:
    """The laboratory's page of a run."""
    if (runs / objective / "analysis" / "analysis.html").is_file():
        return
    say(f"looking inside {objective}")
    headless.analyze(
        runs / objective,
        runs / objective / "analysis",
        preset="full" if full else "cheap",
        random_twin=full,
        formats=["svg", "png"] if full else ["svg"],
        overwrite=True,
        progress=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--full", action="store_true", help="all that the project can show")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of both configs"
    )
    options = parser.parse_args(arguments)
    begin, runs, full = time.monotonic(), options.runs, options.full
    changes = dict(change.split("=", 1) for change in options.set)
    if steps := options.steps or (FULL_STEPS if full else None):
        changes["trainer.max_steps"] = str(steps)
    demo_corpus.main(TEXT)
    if not (DATA / "manifest.json").is_file():
        say("preparing the text")
        headless.prepare(str(TEXT), DATA, vocab_size=4096, validation_fraction=0.03, progress=True)
    demo_evaluation.main([str(EVALUATION), "--data", str(DATA)])
    report = Report(runs)
    for objective in OBJECTIVES:
        train(runs, objective, report, changes)
    for objective in OBJECTIVES:
        exported = runs / "exported" / objective
        if not exported.is_dir():
            headless.export(runs / objective, exported)
        evaluate(runs, objective)
    if full and not is_finished(runs / "headless-lm-head-embedding"):
        say("training a softmax head for the headless model, as the paper does")
        headless.tune_head(
            runs / "headless", {"run.resume": True}, start="embedding", progress=True
        )
    for objective in OBJECTIVES:
        look_inside(runs, objective, full)
    terminal.show(report.write())
    for objective in OBJECTIVES:
        text = headless.load(runs / "exported" / objective).generate(
            PROMPT, max_new_tokens=40, seed=1
        )
        print(f"\n{runs}/exported/{objective}, a Hugging Face model, continues a prompt:")
        print(f"{PROMPT}{text}")
    print(f"\n{report.page}\n{time.monotonic() - begin:.0f} seconds")


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except headless.HeadlessError as error:
        raise SystemExit(f"demo: error: {error}") from None
