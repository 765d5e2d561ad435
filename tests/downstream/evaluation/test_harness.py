"""Our scores are those of EleutherAI's lm-evaluation-harness, run for real where it is there."""

import importlib.util
import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from headless.data.bpe import train_tokenizer
from headless.data.tokenizer import add_mask_token, as_fast_tokenizer
from headless.downstream.evaluation.harness import evaluate_harness, open_harness
from headless.downstream.evaluation.kinds import evaluate_items as evaluate
from headless.downstream.evaluation.tasks import Task, read_items
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError

WORDS = "the king a crown my lord no man sees fears loves calls sea sword rose storm night".split()
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc"} | MEAN,
        ],
    },
    "blimp": {
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "metric_list": [{"metric": "acc"} | MEAN],
    },
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": name} | MEAN for name in ("acc", "acc_norm", "acc_bytes")],
    },
}


def installed() -> bool:
    try:
        importlib.import_module("lm_eval.models.huggingface")
    except ImportError:
        return False
    return True


needs_harness = pytest.mark.skipif(
    not installed(), reason="lm-evaluation-harness is not installed: pip install lm-eval"
)


def phrase(draw: random.Random, low: int, high: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))


def records_of(kind: str, number: int = 60) -> list[dict[str, Any]]:
    """Items of a kind, some of them longer than the model reads."""
    draw = random.Random(kind)
    if kind == "text":
        return [{"text": phrase(draw, 1, 90) + draw.choice(["", " é\n", "."])} for _ in range(20)]
    if kind == "lambada":
        return [{"text": phrase(draw, 1, 60)} for _ in range(number)]
    if kind == "blimp":
        return [
            {"sentence_good": phrase(draw, 2, 8), "sentence_bad": phrase(draw, 2, 8)}
            for _ in range(number)
        ]
    return [
        {
            "query": phrase(draw, 1, 40) + draw.choice(["", " ", "?"]),
            "choices": [phrase(draw, 1, 4) + draw.choice(["", "é"]) for _ in range(4)],
            "gold": draw.randrange(4),
        }
        for _ in range(number)
    ]


def language_model(model_type: str = "gpt_neox") -> LanguageModel:
    draw = random.Random(0)
    tokenizer = as_fast_tokenizer(train_tokenizer([phrase(draw, 500, 500)], 300))
    masked = model_type == "bert"
    if masked:
        add_mask_token(tokenizer, "[MASK]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        intermediate_size=64,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        **sizes,
    )
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.3)
    task = "masked" if masked else "causal"
    return LanguageModel(model, tokenizer, task, "tiny", "own", "tiny", None)  # type: ignore[arg-type]


def greedy_records(loaded: LanguageModel) -> list[dict[str, Any]]:
    """Passages whose last word is what the model would write."""
    draw, found = random.Random(1), []
    for _ in range(300):
        context = phrase(draw, 1, 12)
        ids = loaded.tokenizer(context)["input_ids"]
        with torch.no_grad():
            best = int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if (word := loaded.tokenizer.decode([best])).startswith(" ") and word.strip().isalpha():
            found.append({"text": context + word})
    return found


def write_task(directory: Path, kind: str) -> tuple[Task, Task]:
    """The same items as a task of ours and of theirs."""
    data, described = directory / f"{kind}.jsonl", directory / f"{kind}.yaml"
    records = records_of(kind)
    if kind == "lambada":
        records += greedy_records(language_model())
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    description = {
        "task": f"our_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(directory / "cache"),
        },
        "test_split": "test",
        **TASKS[kind],
    }
    described.write_text(yaml.safe_dump(description))
    return Task(kind, str(data)), Task("harness", str(described))


@needs_harness
@pytest.mark.parametrize("kind", list(TASKS))
def test_scores_agree(kind: str, tmp_path: Path) -> None:
    loaded = language_model()
    ours, theirs = write_task(tmp_path, kind)
    mine = evaluate(loaded, read_items(ours))
    (other,) = evaluate_harness(loaded, theirs, open_harness(theirs))
    assert other.items == mine.items >= len(records_of(kind))
    assert mine.skipped == 0
    assert len(other.metrics) == len(TASKS[kind]["metric_list"])
    for name, value in other.metrics.items():
        assert mine.metrics[name] == pytest.approx(value, rel=1e-5), name
        if name.startswith("accuracy"):
            assert mine.errors[name] == pytest.approx(other.errors[name], rel=1e-6)
            assert 0 < value < 1
    if kind in ("lambada", "choice"):
        assert mine.truncated > 0


@needs_harness
def test_a_limit_and_a_shorter_context(tmp_path: Path) -> None:
    loaded = language_model()
    ours, theirs = write_task(tmp_path, "text")
    options: dict[str, Any] = {"batch_size": 3, "max_length": 10}
    mine = evaluate(loaded, read_items(ours, limit=7), **options)
    (other,) = evaluate_harness(loaded, theirs, open_harness(theirs), **options, limit=7)
    assert other.items == mine.items == 7
    assert mine.metrics["bits_per_byte"] == pytest.approx(other.metrics["bits_per_byte"], rel=1e-5)


@needs_harness
def test_what_the_harness_cannot_do_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import tasks

    _, theirs = write_task(tmp_path, "lambada")
    manager = open_harness(theirs)
    with pytest.raises(HeadlessError, match="there is no nowhere.yaml"):
        open_harness(Task("harness", "nowhere.yaml"))
    # The list of all its tasks takes seconds to make: here it has the described one alone.
    few = partial(tasks.TaskManager, include_path=str(tmp_path))
    monkeypatch.setattr(tasks, "TaskManager", lambda include_defaults: few(include_defaults=False))
    name = yaml.safe_load(Path(theirs.source).read_text())["task"]
    with pytest.raises(HeadlessError, match=f"did you mean '{name}'?"):
        open_harness(Task("harness", name[:-1]))
    assert open_harness(Task("harness", name)).all_tasks == [name]
    with pytest.raises(HeadlessError, match="masked language model.*it can do blimp, not harness"):
        evaluate_harness(language_model("bert"), theirs, manager)
    (tmp_path / "lambada.jsonl").unlink()
    with pytest.raises(HeadlessError, match="is its data within reach") as found:
        evaluate_harness(language_model(), theirs, manager)
    assert "\n" not in str(found.value)


def test_without_the_harness_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(HeadlessError, match=r"not installed.*pip install 'headless-lm\[eval\]'"):
        open_harness(Task("harness", "lambada_openai"))
