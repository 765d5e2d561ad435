"""What a head, a bias, the contrast and the optimizer each do to the inside of a language model.

    python scripts/microscope.py SWEEP [--output FILE.json] [--tokens N] [--figure FILE.svg]

SWEEP is the directory of `headless sweep --config configs/sweep/microscope.yaml`, of
microscope-gpu.yaml, or of controls.yaml, which has some of its runs: {softmax untied, untied with a
bias that begins at log p(v), tied with the fixed bias, headless, headless with logQ} x {AdamW,
Muon}, paired by seed. Each is analysed once (FILE.json holds what is there; the same command goes
on). One row a phenomenon: its mean in each arm, and four effects, each the mean of differences of
runs that share seed, optimizer and all else, with a 95 % interval: of the bias (untied), of the
contrast (headless against the tied softmax that has the same bias), of leaving logQ out, of Muon.
The last column names the effects that differ from 0 at 0.01, the largest first. Of the runs that go
over to a softmax a second table has the numbers that `headless analyze --analyses switch` asks for
first: before and behind the switch, at the end, and what they changed over as long before it. The
figure shows three of the models: the mean of their last states' logits against log p(v), a point a
token.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import write
from sweep_runs import finished_runs

import headless
from headless.analysis.course.switch import HEADLINES, key_of
from headless.analysis.head.lens import counts_of, head_of, statistics_of
from headless.analysis.session import Session
from headless.analysis.states.capture import final_point
from headless.analysis.subject import open_subject
from headless.objectives.base import log_unigram
from headless.reports.statistics import Difference, difference, estimate

HEADS = {
    "ce_untied": "softmax, untied",
    "ce_untied_initial": "… + bias",
    "ce_tied_fixed": "softmax, tied + bias",
    "cwt_t05": "headless",
    "cwt_logq_t05": "headless, logQ",
}
OPTIMIZERS = ("adamw", "muon")
ARMS = tuple(f"{head}-{optimizer}" for head in HEADS for optimizer in OPTIMIZERS)
EFFECTS = {  # arms, less the arms beside them
    "bias": [(f"ce_untied_initial-{o}", f"ce_untied-{o}") for o in OPTIMIZERS],
    "contrast": [(f"cwt_t05-{o}", f"ce_tied_fixed-{o}") for o in OPTIMIZERS],
    "no logQ": [(f"cwt_t05-{o}", f"cwt_logq_t05-{o}") for o in OPTIMIZERS],
    "Muon": [(f"{head}-muon", f"{head}-adamw") for head in HEADS],
}
ANALYSES = ("unigram", "ngrams", "neurons", "bottleneck", "frequency", "anisotropy", "covariance")
PHENOMENA = {  # a key of analysis.json (tied: the embedding's for the head's), in words
    "unigram/norm_f/r2": "last states' mean logits on log p(v): R²",
    "unigram/norm_f/slope": "… slope",
    "unigram/norm_f/share": "share of single states' logit variance along log p(v)",
    "unigram/norm_f/moment": "share of the last states' second moment on the unigram direction",
    "anisotropy/norm_f": "mean cosine of two last states",
    "anisotropy/head": "mean cosine of two rows of the head",
    "frequency/head/rho_cos_mean": "rank correlation of count and cosine with the mean row",
    "frequency/head/rho_norm": "… of count and norm of the row",
    "covariance_spectra/norm_f/entropy_rank": "effective rank of the last states",
    "covariance_spectra/norm_f/exponent": "exponent of their spectrum (α-ReQ)",
    "bottleneck/full/lost": "share of the logit gradient lost, whole softmax",
    "bottleneck/contrastive/lost": "… contrastive loss",
    "ngrams/unigram/divergence": "divergence of predictions from unigrams, nats",
    "ngrams/bigram/divergence": "… from bigrams",
    "neurons/token_frequency_set/unigram_change": "divergence from p(v) without the clearest "
    "token-frequency neurons",
}
NULLS = {  # p of what random sets of neurons change: how many models it is 0.05 in, the least
    "neurons/token_frequency_set/unigram_change_p": "the clearest token-frequency neurons change "
    "the divergence from p(v)",
    "neurons/entropy_set/entropy_change_p": "the clearest entropy neurons change the entropy",
}
KEYS = {*PHENOMENA, *NULLS, "bottleneck/random_columns/lost"}
DRAWN = {
    "ce_untied-muon": "softmax",
    "ce_untied_initial-muon": "softmax with an output bias",
    "cwt_t05-muon": "headless",
}
LEVEL = 0.01
SWITCHED = "cwt_switch-muon"
PARTS = ("before", "after", "end", "change", "change_before")

Values = dict[str, dict[str, dict[str, float]]]  # by arm, seed and key


def runs(sweep: Path) -> Iterator[tuple[str, str, Path]]:
    """The finished runs of the arms: arm, seed, directory."""
    return (
        (arm, seed, run.directory.path) for arm, seed, run in finished_runs(sweep) if arm in ARMS
    )


def effect(pairs: list[tuple[str, str]], key: str, values: Values) -> Difference | None:
    """The mean difference over seeds and over what the pairs have not in common."""
    sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for place, pair in enumerate(pairs):
        for side, arm in zip(sides, pair, strict=True):
            for seed, numbers in values.get(arm, {}).items():
                if key in numbers:
                    side[1000 * place + int(seed)] = numbers[key]
    if not sides[0].keys() & sides[1].keys():
        return None
    return difference(*sides)


def row(key: str, values: Values) -> dict[str, Any]:
    """A phenomenon: its means, its effects, and which of them are there."""
    means = {
        arm: estimate(numbers.get(key) for numbers in values.get(arm, {}).values()) for arm in ARMS
    }
    effects = {name: effect(pairs, key, values) for name, pairs in EFFECTS.items()}
    there = [name for name, one in effects.items() if one is not None and one.p and one.p < LEVEL]
    there.sort(key=lambda name: -abs(effects[name].mean))  # type: ignore[union-attr]
    return {"means": means, "effects": effects, "by": there}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown; a cell holds the means under AdamW and under Muon."""
    heads = ["", *HEADS.values(), *EFFECTS, "by"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 2)} --- |"]
    for key, found in rows.items():
        means = found["means"]
        cells = [
            " / ".join(mean(means[f"{head}-{optimizer}"]) for optimizer in OPTIMIZERS)
            for head in HEADS
        ]
        cells += [number(one) for one in found["effects"].values()]
        lines.append(f"| {' | '.join([PHENOMENA[key], *cells, ', '.join(found['by'])])} |")
    return "\n".join(lines)


def mean(value: Any) -> str:
    """Without its interval."""
    return "" if value is None else f"{value.mean:.3g}"


def number(value: Any) -> str:
    """A difference with its interval where there is one."""
    if value is None:
        return ""
    half = "" if value.half_width is None else f" ± {value.half_width:.2g}"
    return f"{value.mean:+.2g}{half}"


def beyond_chance(key: str, values: Values) -> Iterator[str]:
    """By arm: in how many models a p-value is at most 0.05."""
    for arm in ARMS:
        if found := [one[key] for one in values.get(arm, {}).values() if key in one]:
            yield f"{arm} {sum(p <= 0.05 for p in found)} of {len(found)}"


def switches(sweep: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By headline and part of the switch: the numbers of the runs by seed."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for arm, seed, run in finished_runs(sweep):
        if arm == SWITCHED:
            analysis = headless.analyze(run.directory.path, analyses=["switch"], random_twin=False)
            finding = next(one for one in analysis.findings if one.name == "switch")
            places = [*map(str, finding.series["change"].places)]
            for headline in HEADLINES:
                if key := key_of(places, headline):
                    for part in PARTS:
                        values = found.setdefault(headline, {}).setdefault(part, {})
                        values[seed] = float(finding.values(part)[places.index(key)])
    return found


def table_of_switches(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: means over seeds, with intervals for the changes."""
    words = ("", "before", "behind it", "at the end", "change", "over as long before")
    lines = [f"| {' | '.join(words)} |", f"| --- |{' ---: |' * len(PARTS)}"]
    for headline, parts in found.items():
        estimates = {part: estimate(values.values()) for part, values in parts.items()}
        cells = [(number if "change" in part else mean)(one) for part, one in estimates.items()]
        lines.append(f"| {' | '.join([headline, *cells])} |")
    return "\n".join(lines)


def draw(sweep: Path, path: Path) -> None:
    """Mean logits against log p(v)."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    first = {arm: directory for arm, seed, directory in runs(sweep) if seed == "1"}
    figure, axes = plt.subplots(1, len(DRAWN), figsize=(8.4, 3.1), sharex=True, sharey=True)
    for axis, (arm, title) in zip(axes, DRAWN.items(), strict=True):
        log_p_U, logit_U = mean_logits(first[arm])
        slope, start = np.polyfit(log_p_U, logit_U, 1)
        r2 = np.corrcoef(log_p_U, logit_U)[0, 1] ** 2
        axis.scatter(log_p_U, logit_U, s=2, alpha=0.25, linewidths=0, rasterized=True)
        axis.axline((log_p_U.mean(), logit_U.mean()), slope=1, color="0.7", linewidth=0.8)
        axis.axline((0, start), slope=slope, color="C1", linewidth=1.2)
        axis.set(title=title, xlabel="log p(v)")
        axis.text(0.05, 0.93, f"slope {slope:.2f}, R² {r2:.2f}", transform=axis.transAxes, va="top")
    axes[0].set_ylabel("mean logit of the last states")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, dpi=200)


def mean_logits(directory: Path) -> tuple[Any, Any]:
    """Of the tokens that occur in the training text: log p(v), and the mean state's logit."""
    lab = Session(open_subject(str(directory), None, 8192, None, "validation", "cpu", False))
    head, statistics = head_of(lab), statistics_of(lab)
    state_D = statistics[final_point(statistics)].sample_KD.double().mean(dim=0)
    count_V = counts_of(lab, len(head.weight_VD))
    logit_V = head.weight_VD.double() @ state_D
    seen_V = count_V > 0
    return log_unigram(count_V)[seen_V].numpy(), (logit_V - logit_V.mean())[seen_V].numpy()


def main() -> None:
    """Analyse what is not yet there, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/microscope.json"))
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    written: dict[str, Any] = {"values": {}, "switch": {}}
    if options.output.is_file():
        written |= json.loads(options.output.read_text())
    values: Values = written["values"]
    for arm, seed, directory in runs(options.sweep):
        if not KEYS <= values.get(arm, {}).get(seed, {}).keys():
            found = headless.analyze(
                directory, analyses=list(ANALYSES), random_twin=False, tokens=options.tokens
            )
            scalars = {
                key: found.scalars.get(key, found.scalars.get(key.replace("head", "embedding")))
                for key in sorted(KEYS)
            }
            values.setdefault(arm, {})[seed] = scalars
            write(options.output, written | {"tokens": options.tokens})
            print(arm, seed, scalars, flush=True)
    print(table({key: row(key, values) for key in PHENOMENA}))
    for key, words in NULLS.items():
        print(f"{words}: {', '.join(beyond_chance(key, values))}")
    if found := switches(options.sweep):
        write(options.output, written | {"tokens": options.tokens, "switch": found})
        print(table_of_switches(found))
    if options.figure:
        draw(options.sweep, options.figure)


if __name__ == "__main__":
    main()
