"""Losses, metrics, pooling, batches and training, against formulas."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from safetensors.torch import load_file
from scipy import stats
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
)

from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer
from headless.downstream.classification.data import LabelledText
from headless.downstream.classification.model import (
    TextClassifier,
    encode,
    pool,
    save_classifier,
    with_template,
)
from headless.downstream.classification.tasks import TextTask
from headless.downstream.classification.training import (
    CLASS_METRICS,
    NUMBER_METRICS,
    ClassificationModule,
    Finetuning,
    classification_loss,
    fitting_rate,
    rank,
    score,
)
from headless.downstream.finetune import baseline_notes
from headless.downstream.language_model import NO_HEAD, LanguageModel
from headless.downstream.options import Recipe
from headless.errors import HeadlessError
from headless.progress import Display

WORDS = ["the king loves", "a crown", "the sea fears", "no man", "sweet love sees"]


def tokenizer_of(kind: str, data: Path, directory: Path) -> Any:
    """Ours, without a template, or BERT's."""
    if kind == "gpt_neox":
        return load_tokenizer(str(open_dataset(data).tokenizer_path))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(WORDS).split(), "b"]
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    return BertTokenizer.from_pretrained(directory)


def encoder_of(kind: str, data: Path, directory: Path) -> LanguageModel:
    """A model of a few thousand weights."""
    tokenizer = tokenizer_of(kind, data, directory)
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    more = {"add_pooling_layer": False} if kind == "bert" else {}
    backbone = AutoModel.from_config(config, **more).eval()
    task: Any = "causal" if kind == "gpt_neox" else "masked"
    return LanguageModel(backbone, tokenizer, task, kind, NO_HEAD, kind, None)


@torch.no_grad()
def outputs_of(model: TextClassifier, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Logits, or numbers, of one batch."""
    rows, _ = encode(tokenizer, texts, None, 32)
    return model(DataCollatorWithPadding(tokenizer)(rows))


@pytest.mark.parametrize("kind", ["gpt_neox", "bert"])
@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_padding_changes_nothing(kind: str, pooling: Any, dataset: Path, tmp_path: Path) -> None:
    encoder = encoder_of(kind, dataset, tmp_path / "v")
    model = TextClassifier(encoder.model, 3, pooling)
    tokenizer = with_template(encoder.tokenizer)
    together = outputs_of(model.eval(), tokenizer, WORDS)
    alone = torch.cat([outputs_of(model, tokenizer, [text]) for text in WORDS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert len({round(float(x), 4) for x in together[:, 0]}) > 1 or pooling == "first"


def test_pooling_takes_the_right_tokens() -> None:
    hidden_BTD = torch.randn(2, 4, 3, dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert torch.equal(pool(hidden_BTD, mask_BT, "first"), hidden_BTD[:, 0])
    last = pool(hidden_BTD, mask_BT, "last")
    assert torch.equal(last, torch.stack([hidden_BTD[0, 3], hidden_BTD[1, 1]]))
    mean = pool(hidden_BTD, mask_BT, "mean")
    torch.testing.assert_close(mean[1], (hidden_BTD[1, 0] + hidden_BTD[1, 1]) / 2)


def test_ours_begin_with_the_end_of_a_document_and_bert_uses_its_template(
    dataset: Path, tmp_path: Path
) -> None:
    ours = tokenizer_of("gpt_neox", dataset, tmp_path)
    end = ours.eos_token_id

    def plain(text: str) -> list[int]:
        return ours(text, add_special_tokens=False).input_ids

    (found, *_), cut = encode(with_template(ours), ["my lord"], None, 32)
    assert found["input_ids"] == [end, *plain("my lord")]
    assert ours("my lord").input_ids == plain("my lord")  # the model's own is as it was
    (found, *_), _ = encode(with_template(ours), ["my lord"], ["the sea"], 32)
    assert found["input_ids"] == [end, *plain("my lord"), end, *plain("the sea")]
    assert cut == 0
    bert = tokenizer_of("bert", dataset, tmp_path / "v")
    (found, *_), _ = encode(with_template(bert), ["the king"], ["a crown"], 32)
    assert bert.decode(found["input_ids"]) == "[CLS] the king [SEP] a crown [SEP]"
    assert found["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


WORD_LEVEL = Tokenizer(WordLevel({"<end>": 0, "x": 1, "y": 2, "?": 3}, unk_token="?"))
WORD_LEVEL.pre_tokenizer = Whitespace()
LETTERS = with_template(PreTrainedTokenizerFast(tokenizer_object=WORD_LEVEL, eos_token="<end>"))


@given(a=st.integers(1, 60), b=st.integers(0, 60), limit=st.integers(4, 40))
@settings(max_examples=60, deadline=None)
def test_what_is_cut_fits_and_fills(a: int, b: int, limit: int) -> None:
    (found,), cut = encode(LETTERS, [" ".join("x" * a)], [" ".join("y" * b)] if b else None, limit)
    whole = a + 1 + (b + 1 if b else 0)
    assert len(found["input_ids"]) == min(whole, limit)
    assert cut == (whole > limit)
    assert not b or found["input_ids"].count(0) == 2
    if b and whole > limit:  # the longer one lost more
        second = found["input_ids"].index(0, 1)
        kept = second - 1, len(found["input_ids"]) - second - 1
        assert min(kept) >= min(a, b, (limit - 2) // 2)


def test_losses_against_the_formula_in_float64() -> None:
    logits_BC = torch.randn(12, 3, dtype=torch.float64)
    labels_B = torch.tensor([0] * 8 + [2] * 4)
    p = np.exp(logits_BC.numpy())
    each = -np.log(p[np.arange(12), labels_B] / p.sum(1))
    assert classification_loss(logits_BC, labels_B, False).item() == pytest.approx(each.mean())
    wanted = (each[:8].mean() + each[8:].mean()) / 2
    assert classification_loss(logits_BC, labels_B, True).item() == pytest.approx(wanted)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 4), n=st.integers(3, 40))
@settings(max_examples=40, deadline=None)
def test_class_metrics_against_the_formulas(seed: int, classes: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs_NC = torch.randn(n, classes, generator=generator)
    labels_N = torch.randint(classes, (n,), generator=generator)
    names = [m for m in CLASS_METRICS if m != "f1" or classes == 2]
    found = score(outputs_NC, labels_N, names)
    counts = np.zeros((classes, classes))  # true, guessed
    np.add.at(counts, (labels_N.numpy(), outputs_NC.argmax(1).numpy()), 1)
    right, true, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1 = 2 * right / np.maximum(true + guessed, 1)
    spread = (n**2 - true @ true) * (n**2 - guessed @ guessed)
    wanted = {
        "accuracy": right.sum() / n,
        "macro_f1": f1[true + guessed > 0].mean(),
        "matthews": (right.sum() * n - true @ guessed) / np.sqrt(spread) if spread else 0.0,
    }
    if classes == 2:
        wanted["f1"] = f1[1]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_always_the_same_class_has_no_correlation() -> None:
    outputs_NC = torch.tensor([[0.0, 1.0]] * 20)
    labels_N = torch.tensor([1] * 19 + [0])
    assert score(outputs_NC, labels_N, ["matthews"]) == {"matthews": 0.0}


def test_number_metrics_against_scipy() -> None:
    outputs_N1, labels_N = torch.randn(30, 1), torch.randn(30)
    labels_N[3] = labels_N[4]  # a tie
    found = score(outputs_N1, labels_N, NUMBER_METRICS)
    a, b = outputs_N1[:, 0].double().numpy(), labels_N.double().numpy()
    assert found["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-6)
    assert found["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-6)
    assert found["rmse"] == pytest.approx(np.sqrt(((a - b) ** 2).mean()))
    assert np.isnan(score(torch.ones(30, 1), labels_N, NUMBER_METRICS)["pearson"])


def test_batches_hold_every_example_once_padded_at_the_right(dataset: Path, tmp_path: Path) -> None:
    made = finetuning("gpt_neox", "full", dataset, tmp_path)
    scored = [batch["labels"].tolist() for batch in made.loader("train")]
    assert sum(scored, []) == made.labels["train"].tolist()  # in their order
    bare = sorted(e["input_ids"] for e in made.examples["train"])

    def rows(loader: Any) -> list[list[int]]:
        """Without what the mask hides, which is at the right."""
        return [
            ids[: sum(mask)]
            for batch in loader
            for ids, mask in zip(
                batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True
            )
        ]

    orders = []
    for seed in (0, 0, 1):
        loader = made.loader("train", seed)
        first, second = rows(loader), rows(loader)
        assert first != second
        assert sorted(first) == sorted(second) == bare
        orders.append(first)
    assert orders[0] == orders[1] != orders[2]


def test_only_matrices_decay(dataset: Path, tmp_path: Path) -> None:
    encoder = encoder_of("gpt_neox", dataset, tmp_path)
    model = TextClassifier(encoder.model, 2, "last")
    module = ClassificationModule(model, Recipe(weight_decay=0.3), ("accuracy",))
    module._trainer = type("T", (), {"estimated_stepping_batches": 10})()  # type: ignore[assignment]
    (optimizer,), _ = module.configure_optimizers()
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0), name


def test_the_rate_falls_with_the_size_of_the_model() -> None:
    def rate(
        family: str, width: int, layers: int, mode: str = "full", vocabulary: int = 100
    ) -> Any:
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary}
        heads = {"num_attention_heads": width // 32, "intermediate_size": 4 * width}
        with torch.device("meta"):
            return fitting_rate(
                AutoModel.from_config(AutoConfig.for_model(family, **sizes, **heads)), mode
            )

    assert rate("bert", 768, 12, vocabulary=30_522) == pytest.approx(2e-5, rel=0.05)
    assert rate("gpt_neox", 64, 2) == rate("bert", 128, 2) == 1e-3
    assert 1e-4 < rate("bert", 384, 6, vocabulary=30_522) < 2e-4
    assert rate("gpt_neox", 2048, 24) == 1e-5
    assert rate("bert", 768, 12, vocabulary=200_000) == rate("bert", 768, 12)
    assert rate("bert", 768, 12, "probe") == rate("bert", 64, 2, "probe") == 1e-2


def test_a_note_stands_where_reading_the_texts_gained_nothing() -> None:
    def notes(accuracy: float, matthews: float, n: int, seeds: float | None = None) -> list[str]:
        facts = {
            "reported_split": "test",
            "baseline": {"accuracy": 0.6},
            "splits": {"test": {"examples": n}},
            "lr": 1e-3,
            "epochs": 3,
        }
        scores = {"accuracy": accuracy, "matthews": matthews}
        summary = {k: {"mean": v, "interval_95": seeds, "n": 1} for k, v in scores.items()}
        return baseline_notes(facts, {"test": summary})

    assert notes(0.6, 0.0, 10_000)
    assert notes(0.55, 0.01, 100)
    assert notes(0.65, 0.1, 100)  # 0.65 ± 0.09
    assert not notes(0.65, 0.1, 1000)
    assert notes(0.65, 0.05, 1000, seeds=0.06)
    assert not notes(0.58, 0.3, 1000)  # it knows the classes apart, and is not the largest alone
    assert notes(1.0, 1.0, 3)  # three of three, where 0.6 of all are right by chance


def separable(num: int, start: int) -> DataFrame:
    """Two classes that one word tells apart."""
    texts = [
        f"{WORDS[i % 5]} {'a crown' if i % 2 else 'the sea'}" for i in range(start, start + num)
    ]
    labels = ["odd" if i % 2 else "even" for i in range(start, start + num)]
    return DataFrame({"text": texts, "label": labels, "group": texts})


def finetuning(
    kind: str,
    mode: Any,
    dataset: Path,
    directory: Path,
    *,
    regression: bool = False,
    precision: str = "32-true",
) -> Finetuning:
    splits = {"train": separable(64, 0), "validation": separable(16, 3), "test": separable(20, 7)}
    if regression:
        splits = {
            name: part.assign(label=100.0 + (part["label"] == "odd"))
            for name, part in splits.items()
        }
    options: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 1e-2, "dropout": 0.1}
    recipe = Recipe(mode=mode, accelerator="cpu", precision=precision, **options)
    text = LabelledText(splits, () if regression else ("even", "odd"))
    task = TextTask("t", regression=regression)
    return Finetuning(encoder_of(kind, dataset, directory), task, text, recipe)


@pytest.mark.parametrize(("kind", "mode"), [("gpt_neox", "full"), ("bert", "probe")])
def test_it_learns_the_same_again_and_is_saved_whole(
    kind: str, mode: Any, dataset: Path, tmp_path: Path
) -> None:
    points: list[Any] = []
    first = finetuning(kind, mode, dataset, tmp_path / "v")
    before = copy.deepcopy(first.encoder.model.state_dict())
    result = first.run(1, tmp_path, lambda *point: points.append(point), Display(False))
    # A frozen random encoder averages what tells the classes apart: it cannot tell all.
    assert result.scores["test"]["accuracy"] > (0.9 if mode == "full" else 0.6)
    assert [epoch for epoch, *_ in points] == [1, 2, 3, 4]
    best = max(values["val/accuracy"] for *_, values in points)
    assert points[result.best_epoch - 1][2]["val/accuracy"] == best
    assert result.scores["validation"]["accuracy"] == best
    # the encoder stays as it was, so that the next seed begins where this one did
    for name, value in first.encoder.model.state_dict().items():
        assert torch.equal(value, before[name])
    again = finetuning(kind, mode, dataset, tmp_path / "v").run(
        1, tmp_path, lambda *_: None, Display(False)
    )
    assert torch.equal(result.outputs, again.outputs)
    other = first.run(2, tmp_path, lambda *_: None, Display(False))
    assert not torch.equal(result.outputs, other.outputs)
    test = first.text.splits["test"]
    place = tmp_path / "out"
    save_classifier(result.model, first.tokenizer, {"classes": ["even", "odd"]}, place)
    # What plain Transformers makes of the directory.
    backbone = AutoModel.from_pretrained(place).eval()
    batch = AutoTokenizer.from_pretrained(place)(
        test["text"].tolist(), padding=True, return_tensors="pt", return_token_type_ids=False
    )
    facts, head = (
        json.loads((place / "classifier.json").read_text()),
        load_file(place / "classifier.safetensors"),
    )
    with torch.no_grad():
        hidden = backbone(**batch).last_hidden_state
    pooled = pool(hidden, batch["attention_mask"], facts["pooling"])
    logits = pooled @ head["weight"].T + head["bias"]
    torch.testing.assert_close(logits, result.outputs, rtol=1e-4, atol=1e-5)
    right = [facts["classes"][i] for i in logits.argmax(1)] == test["label"]
    assert right.mean() == pytest.approx(result.scores["test"]["accuracy"])


def test_it_learns_under_bf16_and_scores_in_float32(dataset: Path, tmp_path: Path) -> None:
    half = finetuning("gpt_neox", "full", dataset, tmp_path, precision="bf16-mixed")
    result = half.run(1, tmp_path, lambda *_: None, Display(False))
    assert result.scores["test"]["accuracy"] > 0.9
    assert not torch.equal(result.outputs, result.outputs.bfloat16().float())
    for precision in ("16-mixed", "16-true", "bf16-true"):
        with pytest.raises(HeadlessError, match="take bf16-mixed"):
            finetuning("gpt_neox", "full", dataset, tmp_path, precision=precision)


def test_a_probe_on_cached_vectors_is_the_model_itself(dataset: Path, tmp_path: Path) -> None:
    probe = finetuning("bert", "probe", dataset, tmp_path / "v")
    result = probe.run(1, tmp_path, lambda *_: None, Display(False))
    texts = probe.text.splits["test"]["text"].tolist()
    outputs = outputs_of(result.model, probe.tokenizer, texts)
    torch.testing.assert_close(outputs, result.outputs, rtol=1e-4, atol=1e-5)


def test_regression_predicts_in_the_labels_units(dataset: Path, tmp_path: Path) -> None:
    numbers = finetuning("gpt_neox", "full", dataset, tmp_path, regression=True)
    result = numbers.run(1, tmp_path, lambda *_: None, Display(False))
    assert result.scores["test"]["pearson"] > 0.9
    labels_N = torch.tensor(numbers.text.splits["test"]["label"].tolist())
    rmse = float((result.outputs[:, 0] - labels_N).square().mean().sqrt())
    assert result.scores["test"]["rmse"] == pytest.approx(rmse, rel=1e-3)
    assert rmse < 0.4 < numbers.facts()["baseline"]["rmse"]
    texts = numbers.text.splits["test"]["text"].tolist()
    outputs = outputs_of(result.model, numbers.tokenizer, texts)
    torch.testing.assert_close(outputs, result.outputs, rtol=0, atol=1e-3)
    save_classifier(result.model, numbers.tokenizer, {}, tmp_path / "out")
    pooled = result.model.pooled(
        DataCollatorWithPadding(numbers.tokenizer)(encode(numbers.tokenizer, texts, None, 32)[0])
    )
    head = load_file(tmp_path / "out" / "classifier.safetensors")
    saved = (pooled @ head["weight"].T + head["bias"]).detach()
    torch.testing.assert_close(saved, outputs, rtol=0, atol=1e-3)


def test_the_epoch_is_chosen_by_the_first_metric(dataset: Path, tmp_path: Path) -> None:
    model = TextClassifier(encoder_of("gpt_neox", dataset, tmp_path).model, 2, "last")
    module = ClassificationModule(model, Recipe(), ("matthews", "accuracy"))
    assert module.best is None
    nan = {"matthews": float("nan"), "loss": 0.1}
    assert rank("matthews", {"matthews": -0.5, "loss": 9.0}) > rank("matthews", nan)
    assert rank("rmse", {"rmse": 0.1, "loss": 1.0}) > rank("rmse", {"rmse": 0.2, "loss": 0.5})
