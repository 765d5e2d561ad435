"""The verb: a classifier, or a regression, on labelled text."""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from headless.downstream.classification.data import read_task
from headless.downstream.classification.model import save_classifier
from headless.downstream.classification.tasks import make_task
from headless.downstream.classification.training import Finetuning, SeedResult, rank
from headless.downstream.loading import load
from headless.downstream.options import FinetuneOptions, Recipe, Source
from headless.files import finite, json_lines, new_directory, write_json, write_text
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.runs.environment import describe_environment
from headless.runs.metrics import append_point
from headless.training.assembly import quiet_lightning

RESULTS = "results.json"


@isolated()
def finetune(
    model: str | Path,
    task: str,
    output: str | Path,
    *,
    progress: bool | Report = False,
    **options: Any,
) -> dict[str, Any]:
    """Fine-tune a model to classify, or to score, sentences or pairs.

    Args:
        model: as of `load`.
        task: a named task, a file, a saved dataset or a `datasets` name: see `FinetuneOptions`.
        output: the directory to make, which appears when all is done.
        progress: show it, or a function that gets (phase, steps done, steps in all).
        **options: see `FinetuneOptions`, `Source` (the data) and `Recipe` (the training).

    Returns:
        What results.json holds: scores by split, metric and seed, their means, facts on the data.
    """

    options = {"model": str(model), "task": task, "output": Path(output), **options}
    parts: list[Any] = []
    for kind in (FinetuneOptions, Source, Recipe):
        names = options.keys() & {f.name for f in fields(kind)}
        parts.append(kind(**{name: options.pop(name) for name in names}))
    if options:
        raise TypeError(f"finetune has no option {min(options)!r}")
    settings, source, recipe = parts
    quiet_lightning()
    with (
        Display(progress) as display,
        new_directory(
            settings.output,
            option="--output",
            overwrite=settings.overwrite,
            is_ours=lambda path: (path / RESULTS).is_file(),
            kind="fine-tuning",
        ) as directory,
    ):
        text_task, place = make_task(settings.task, source)
        text = read_task(text_task, replace(source, data=place))
        encoder = load(model, head=None, trust_remote_code=settings.trust_remote_code)
        encoder.check_tokenizer()
        finetuning = Finetuning(encoder, text_task, text, recipe)
        if recipe.lr is None:
            display.say(f"learning rate: {finetuning.recipe.lr:g} (--lr takes another)")
        values = vars(settings) | vars(source) | vars(finetuning.recipe)
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
        write_text(directory / "config.yaml", yaml.safe_dump(plain, sort_keys=False))
        results = [_run_seed(finetuning, seed, directory, display) for seed in settings.seeds]
        main = finetuning.metrics[0]
        best = max(results, key=lambda result: rank(main, result.scores["validation"]))
        summary = _summary(finetuning, recipe.mode, results) | {"model_seed": best.seed}
        facts = {name: summary[name] for name in ("classes", "max_length", "task")}
        save_classifier(best.model, finetuning.tokenizer, facts, directory / "model")
        write_json(directory / RESULTS, summary)
    return summary


def _run_seed(finetuning: Finetuning, seed: int, output: Path, display: Display) -> SeedResult:
    directory = output / f"seed-{seed}"
    directory.mkdir()

    def report(epoch: int, step: int, values: dict[str, float]) -> None:
        append_point(directory / "metrics.jsonl", {"epoch": epoch, "step": step, **values})
        if not display.live:
            shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
            display.say(f"seed {seed} epoch {epoch}: {shown}")

    result = finetuning.run(seed, directory, report, display)
    write_text(directory / "predictions.jsonl", json_lines(_predictions(finetuning, result)))
    return result


def _predictions(finetuning: Finetuning, result: SeedResult) -> list[dict[str, Any]]:
    """One object an example of the reported split."""
    examples, classes = finetuning.text.splits[finetuning.text.reported], finetuning.text.classes
    records = examples.drop(columns="group").to_dict("records")
    for record, outputs in zip(records, result.outputs, strict=True):
        if classes:
            shares = outputs.softmax(0).tolist()
            record["prediction"] = classes[int(outputs.argmax())]
            record["probabilities"] = dict(zip(classes, shares, strict=True))
        else:
            record["prediction"] = float(outputs[0])
    return records


def _summary(finetuning: Finetuning, mode: str, results: list[SeedResult]) -> dict[str, Any]:
    means: dict[str, Any] = {
        split: {
            metric: _estimate(result.scores[split][metric] for result in results)
            for metric in finetuning.metrics
        }
        for split in results[0].scores
    }
    facts = finetuning.facts()
    facts["notes"] += baseline_notes(facts, means)
    seeds = [
        {"seed": r.seed, "best_epoch": r.best_epoch, "scores": finite(r.scores)} for r in results
    ]
    return {
        "model": finetuning.encoder.name,
        "task": finetuning.task.name,
        "mode": mode,
        **facts,
        "seeds": seeds,
        "summary": means,
        "environment": describe_environment(),
    }


def _estimate(values: Iterable[float]) -> dict[str, Any] | None:
    """The mean over seeds with Student's 95 % interval; None where no value is finite."""
    from scipy.stats import sem, t

    finite_values = [value for value in values if math.isfinite(value)]
    n = len(finite_values)
    if not n:
        return None
    half = float(t.ppf(0.975, n - 1) * sem(finite_values)) if n > 1 else None
    return {"mean": math.fsum(finite_values) / n, "interval_95": half, "n": n}


def baseline_notes(facts: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """A note where the reported score is not above that of a model that reads no text.

    The interval is the seeds' or, if wider, the binomial one of the baseline on as many examples.
    Where classes are uneven, a useful classifier may guess the largest one too seldom; Matthews'
    correlation, which is 0 for a useless one, then decides.
    """
    split, (metric, chance) = facts["reported_split"], next(iter(facts["baseline"].items()))
    scores, n = summary[split], facts["splits"][split]["examples"]
    value = scores[metric]["mean"]
    spread = scores[metric]["interval_95"] or 0.0
    if metric == "rmse":
        learnt = value + spread < chance
        guess = "the mean of the training labels"
    else:
        deviation = 1.96 / math.sqrt(n)
        spread = max(spread, deviation * math.sqrt(chance * (1 - chance)))
        learnt = value - spread > chance or scores["matthews"]["mean"] > deviation
        guess = "the most frequent class of the training text"
    if learnt:
        return []
    return [
        f"{split} {metric} {value:.4f} ± {spread:.4f} is not better than the baseline's "
        f"{chance:.4f} ({guess}): the model may have learnt nothing; try another rate than --lr "
        f"{facts['lr']:g}, or more than --epochs {facts['epochs']}"
    ]
