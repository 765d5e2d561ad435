"""Log-likelihoods against a loop over single texts without padding, in float64."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertTokenizerFast,
    PreTrainedModel,
)

from headless.data.bpe import train_tokenizer
from headless.data.stream import open_dataset
from headless.data.tokenizer import add_mask_token, as_fast_tokenizer
from headless.downstream.evaluation import tasks
from headless.downstream.evaluation.kinds import evaluate_items as evaluate
from headless.downstream.evaluation.kinds import mean, ratio
from headless.downstream.evaluation.likelihood import (
    Row,
    Score,
    continuation_row,
    encode_pair,
    masked_rows,
    rolling_rows,
    score_rows,
)
from headless.downstream.evaluation.tasks import Items, Task, parse_tasks, read_items
from headless.downstream.language_model import LanguageModel
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError

WORDS = "king crown night love lord sea sword man ghost rose storm loves fears sees calls".split()
LENGTH = 24
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "max_position_embeddings": LENGTH}
KINDS: dict[str, dict[str, Any]] = {
    "gpt_neox": SMALL,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH},
    "llama": SMALL,
    "gemma2": SMALL | {"head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 0.5},
}


def make_text(sentences: int, seed: int = 0) -> str:
    """Sentences of four words."""
    draw = random.Random(seed)
    return " ".join(
        f"the {' '.join(draw.choices(WORDS, k=3))}{draw.choice('.!?;')}" for _ in range(sentences)
    )


def tiny(model_type: str, vocab_size: int) -> PreTrainedModel:
    """A random model whose distributions are far from uniform."""
    torch.manual_seed(3)
    special = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    options = KINDS.get(model_type, SMALL)
    config = AutoConfig.for_model(model_type, vocab_size=vocab_size, **special, **options)
    auto = AutoModelForMaskedLM if model_type == "bert" else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.5)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return as_fast_tokenizer(train_tokenizer([make_text(200)], 320))


@pytest.fixture(scope="module")
def masked_tokenizer() -> Any:
    fast = as_fast_tokenizer(train_tokenizer([make_text(200)], 320))
    add_mask_token(fast, "[MASK]")
    return fast


def language_model(model: PreTrainedModel, tokenizer: Any, **changes: Any) -> LanguageModel:
    task = "masked" if type(model).__name__.endswith("MaskedLM") else "causal"
    values = {"task": task, "name": "tiny", "head": "own", "place": "tiny", "directory": None}
    return LanguageModel(model, tokenizer, **(values | changes))


def reference(model: PreTrainedModel, row: Row) -> Score:
    """One row without padding: float64 from the weights on."""
    double = type(model)(model.config).eval()
    double.load_state_dict(model.state_dict())
    double.to(torch.float64)
    with torch.no_grad():
        logits_TV = double(input_ids=torch.tensor([list(row.input_ids)])).logits[0].double()
    log_p_TV = logits_TV.log_softmax(dim=-1)
    total, greedy = 0.0, True
    for position, target in zip(row.positions, row.targets, strict=True):
        total += float(log_p_TV[position, target])
        greedy &= int(log_p_TV[position].argmax()) == target
    return Score(total, greedy)


def some_rows(vocab_size: int, number: int = 12) -> list[Row]:
    """Rows of every length; the targets of some are what the model would say."""
    draw = torch.Generator().manual_seed(1)
    rows = []
    for i in range(number):
        length = 1 + (5 * i) % LENGTH
        scored = 1 + i % length
        ids = torch.randint(vocab_size, (length + 1,), generator=draw).tolist()
        rows.append(Row(ids[:-1], range(length - scored, length), ids[-scored:]))
    return rows


@pytest.mark.parametrize("model_type", [*KINDS, "bert"])
def test_scores_are_those_of_single_rows_in_float64(model_type: str) -> None:
    model = tiny(model_type, 97)
    rows = some_rows(97)
    with torch.no_grad():  # one row that is greedy
        best = int(model(input_ids=torch.tensor([list(rows[0].input_ids)])).logits[0, -1].argmax())
    rows[0] = Row(rows[0].input_ids, rows[0].positions, [best])
    for batch_size in (1, 5, 64):
        for found, row in zip(score_rows(model, rows, batch_size=batch_size), rows, strict=True):
            expected = reference(model, row)
            assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-5)
            assert found.greedy == expected.greedy
    assert score_rows(model, rows)[0].greedy


@pytest.mark.parametrize("model_type", [*KINDS, "bert"])
def test_half_precision_ends_before_the_vocabulary(model_type: str) -> None:
    """Logits of bfloat16 weights are computed in float32: close ones stay different."""
    model: Any = tiny(model_type, 97).to(torch.bfloat16)
    matrix = model.get_output_embeddings().weight
    with torch.no_grad():  # two tokens that bfloat16 logits hardly tell apart
        matrix[50] = matrix[40] * 1.01
    rows = [Row([5, 7, 11], [2], [token]) for token in range(97)]
    found = score_rows(model, rows)
    total = math.fsum(math.exp(score.log_likelihood) for score in found)
    assert total == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        wide = type(model)(model.config).eval()
        wide.load_state_dict(model.state_dict())
        seen: list[torch.Tensor] = []
        hook = model.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        model(input_ids=torch.tensor([[5, 7, 11]]))
        hook.remove()
        assert seen[0].dtype == torch.bfloat16
        logits_V = wide.get_output_embeddings()(seen[0].float())[0, -1]
        if cap := getattr(model.config, "final_logit_softcapping", None):
            logits_V = (logits_V / cap).tanh() * cap
        wanted = logits_V.log_softmax(-1).tolist()
    assert [score.log_likelihood for score in found] == pytest.approx(wanted, abs=1e-5)
    assert [score.greedy for score in found].index(True) == int(logits_V.argmax())
    assert model.get_output_embeddings().weight is matrix


@pytest.mark.parametrize("model_type", ["gpt_neox", "gemma2"])
def test_few_logits_at_a_time_change_nothing(model_type: str, monkeypatch) -> None:
    model, rows = tiny(model_type, 97), some_rows(97)
    expected = [score.log_likelihood for score in score_rows(model, rows)]
    monkeypatch.setattr("headless.models.logits.LOGITS", 3 * 97)
    seen: list[int] = []
    layer: Any = model.get_output_embeddings()
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2]))
    found = score_rows(model, rows)
    assert [score.log_likelihood for score in found] == pytest.approx(expected, rel=1e-5)
    assert max(seen) == 3
    assert sum(seen) == sum(len(row.positions) for row in rows)


def test_nothing_to_score_and_weights_that_are_no_numbers() -> None:
    model = tiny("gpt_neox", 97)
    assert score_rows(model, []) == []
    assert score_rows(model, [Row([1, 2], [], [])]) == [Score(0.0, True)]
    model.get_input_embeddings().weight.data[5] = math.nan
    with pytest.raises(HeadlessError, match="not finite"):
        score_rows(model, [Row([5], [0], [1])])
    with pytest.raises(HeadlessError, match="batch_size must be at least 1"):
        score_rows(model, [], batch_size=0)


def test_progress_counts_every_row() -> None:
    seen: list[tuple[int, int]] = []
    rows = some_rows(97)
    score_rows(tiny("gpt_neox", 97), rows, batch_size=5, progress=lambda *done: seen.append(done))
    assert seen == [(5, 12), (10, 12), (12, 12)]


# -- windows ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 40), st.data())
def test_each_token_is_predicted_once_with_its_true_past(
    number: int, max_length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, max_length))
    tokens = [1000 + i for i in range(number)]
    text = [-1, *tokens]  # -1 is the prefix
    predicted: list[int] = []
    for row in rolling_rows(text, max_length, stride):
        assert len(row.input_ids) <= max_length
        assert len(row.positions) == len(row.targets)
        for position, target in zip(row.positions, row.targets, strict=True):
            at = text.index(target)
            seen = list(row.input_ids[: position + 1])
            assert seen == text[at - len(seen) : at]  # what comes right before it, and all of it
            if predicted and len(predicted) >= max_length:  # no window after the first starts cold
                assert len(seen) > max_length - stride
        predicted += row.targets
    assert predicted == tokens


def test_windows_by_hand() -> None:
    def of(tokens: int, max_length: int, stride: int) -> list[tuple[list[int], list[int]]]:
        rows = rolling_rows([99, *range(tokens)], max_length, stride)
        return [(list(row.input_ids), list(row.targets)) for row in rows]

    assert of(10, 4, 4) == [
        ([99, 0, 1, 2], [0, 1, 2, 3]),
        ([3, 4, 5, 6], [4, 5, 6, 7]),
        ([5, 6, 7, 8], [8, 9]),  # filled up from the left
    ]
    assert of(6, 4, 1)[1:] == [([0, 1, 2, 3], [4]), ([1, 2, 3, 4], [5])]
    assert of(2, 4, 4) == [([99, 0], [0, 1])]


# -- encoding -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_pair_is_its_text_encoded_once(context: str, continuation: str) -> None:
    tokenizer = TOKENIZER
    first, second = encode_pair(tokenizer, context, continuation)
    bare = context.rstrip()
    if bare:
        assert first == tokenizer(bare)["input_ids"]
        assert second == tokenizer(context + continuation)["input_ids"][len(first) :]
    else:
        assert first == [tokenizer.eos_token_id]
        assert second == tokenizer(context + continuation)["input_ids"]


TOKENIZER = as_fast_tokenizer(train_tokenizer([make_text(200)], 320))


def test_blanks_go_to_the_continuation(tokenizer: Any) -> None:
    whole = tokenizer("the king loves")["input_ids"]
    for context, continuation in (("the king", " loves"), ("the king ", "loves")):
        first, second = encode_pair(tokenizer, context, continuation)
        assert first + second == whole
        assert tokenizer.decode(second) == " loves"
    end = tokenizer.eos_token_id
    assert encode_pair(tokenizer, "", " loves") == ([end], tokenizer(" loves")["input_ids"])
    written = tokenizer("<|endoftext|>loves")["input_ids"]  # in a text this is text
    assert end not in written
    assert encode_pair(tokenizer, "", "<|endoftext|>loves") == ([end], written)


def test_a_long_context_is_cut_from_the_left() -> None:
    row, cut = continuation_row([1, 2, 3, 4], [5, 6], 5)  # type: ignore[misc]
    assert (list(row.input_ids), list(row.positions), cut) == ([1, 2, 3, 4, 5], [3, 4], False)
    row, cut = continuation_row([1, 2, 3, 4], [5, 6], 3)  # type: ignore[misc]
    assert (list(row.input_ids), list(row.positions), cut) == ([3, 4, 5], [1, 2], True)
    assert continuation_row([1], [5, 6], 1) is None
    assert continuation_row([1], [], 4) is None


def test_masked_rows_mask_each_token_in_turn(masked_tokenizer: Any) -> None:
    ids = masked_tokenizer("the king loves")["input_ids"]
    end, mask = masked_tokenizer.eos_token_id, masked_tokenizer.mask_token_id
    rows = masked_rows(masked_tokenizer, "the king loves", LENGTH, framed=False)
    assert rows is not None
    assert [row.targets for row in rows] == [[id] for id in ids]
    for i, row in enumerate(rows):
        assert row.input_ids == [end, *ids[:i], mask, *ids[i + 1 :], end]
        assert row.positions == [1 + i]
    assert masked_rows(masked_tokenizer, "the king loves", len(ids) + 1, framed=False) is None


def test_an_encoder_of_others_is_asked_in_its_own_frame(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "king", "loves"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    bert = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    rows = masked_rows(bert, "the king", LENGTH, framed=True)
    assert rows is not None
    read = [bert.convert_ids_to_tokens(row.input_ids) for row in rows]
    assert read == [["[CLS]", "[MASK]", "king", "[SEP]"], ["[CLS]", "the", "[MASK]", "[SEP]"]]


def test_length_of_the_input(tokenizer: Any) -> None:
    model = tiny("gpt_neox", 97)
    assert longest_input(model, tokenizer, None) == LENGTH
    assert longest_input(model, tokenizer, 7) == 7
    with pytest.raises(HeadlessError, match=f"more than the {LENGTH} positions"):
        longest_input(model, tokenizer, LENGTH + 1)
    with pytest.raises(HeadlessError, match="at least 2"):
        longest_input(model, tokenizer, 1)


# -- statistics ---------------------------------------------------------------------------------


def test_errors_against_formulas() -> None:
    zeros_and_ones = [1.0] * 30 + [0.0] * 70
    found = mean(zeros_and_ones)
    assert found.value == 0.3
    assert found.error == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert mean([2.0]).error is None
    assert found.exponential().error == pytest.approx(math.exp(0.3) * math.sqrt(0.3 * 0.7 / 99))
    values = [1.0, 4.0, 2.0, 7.0]
    assert ratio(values, [1.0] * 4).error == pytest.approx(mean(values).error)
    assert ratio(values, [2.0] * 4).error == pytest.approx(mean(values).scaled(0.5).error)
    assert ratio([3.0, 6.0], [1.0, 2.0]).error == pytest.approx(0)  # the same rate in both
    assert ratio([5.0], [2.0]) == mean([2.5])


def test_the_ratios_error_is_that_of_a_simulation() -> None:
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(5, 50, (3000, 40), generator=draw).double()
    noise = torch.randn(3000, 40, generator=draw, dtype=torch.float64) * counts.sqrt()
    totals = 3 * counts + noise
    spread = (totals.sum(dim=1) / counts.sum(dim=1)).std().item()
    errors = [
        ratio(t, c).error or 0.0
        for t, c in zip(totals[:300].tolist(), counts[:300].tolist(), strict=True)
    ]
    assert sum(errors) / 300 == pytest.approx(spread, rel=0.05)


# -- kinds --------------------------------------------------------------------------------------


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def items_of(kind: str, path: Path, records: list[dict[str, Any]], **options: Any) -> Items:
    return read_items(Task(kind, write(path, records)), **options)


def nats(model: PreTrainedModel, context: list[int], continuation: list[int]) -> float:
    """Log-likelihood of a continuation by the reference."""
    whole = context + continuation
    positions = range(len(context) - 1, len(whole) - 1)
    return reference(model, Row(whole[:-1], positions, continuation)).log_likelihood


def test_text_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny("gpt_neox", len(tokenizer))
    texts = ["the king loves a rose; é", make_text(6, seed=4), "no man sees"]
    found = evaluate(
        language_model(model, tokenizer),
        items_of("text", tmp_path / "a.jsonl", [{"text": text} for text in texts]),
        batch_size=3,
        stride=5,
    )
    total = count = 0.0
    for text in texts:
        whole = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
        for at in range(1, len(whole)):
            # The windows' ends: the first LENGTH tokens, then five at a time.
            end = LENGTH + 5 * max(0, math.ceil((at - LENGTH) / 5))
            begin = max(0, min(end, len(whole) - 1) - LENGTH)
            total -= nats(model, whole[begin:at], [whole[at]])
            count += 1
    size = sum(len(text.encode()) for text in texts)
    assert found.settings["tokens"] == count
    assert found.settings["bytes"] == size
    assert found.metrics["nll"] == pytest.approx(total / count, rel=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert found.metrics["bits_per_byte"] == pytest.approx(total / size / math.log(2), rel=1e-5)
    words = sum(len(text.split()) for text in texts)
    assert found.metrics["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-4)
    assert found.items == 3
    assert set(found.errors) == set(found.metrics)


def test_a_prepared_dataset_is_its_validation_text(
    dataset: Path, text_files: Path, tmp_path: Path
) -> None:
    read = read_items(Task("text", str(dataset)))
    originals = {path.read_text() for path in text_files.glob("*.txt")}
    held_out = [item["text"] for item in read.items]
    assert set(held_out) < originals
    numbers = open_dataset(dataset).manifest.splits["validation"]
    assert len(held_out) == numbers["documents"]
    assert sum(len(text.encode()) for text in held_out) == numbers["bytes"]
    copies = items_of("text", tmp_path / "copy.jsonl", [{"text": text} for text in held_out])
    assert copies.sha256 == read.sha256
    with pytest.raises(HeadlessError, match="no split 'test': --split train, validation"):
        read_items(Task("text", str(dataset)), split="test")


def test_last_words_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny("gpt_neox", len(tokenizer))
    texts = ["the king loves a rose", "rose", "no man  sees Ophelia", make_text(9) + " sword"]
    records = [{"text": text} for text in [*texts, "ends with a blank "]]
    found = evaluate(
        language_model(model, tokenizer), items_of("lambada", tmp_path / "a.jsonl", records)
    )
    expected = []
    for text in texts:
        context, _, word = text.rpartition(" ")
        word_ids = tokenizer(f" {word}")["input_ids"]
        context_ids = tokenizer(context)["input_ids"] or [tokenizer.eos_token_id]
        kept = context_ids[-(LENGTH + 1 - len(word_ids)) :]
        expected.append(nats(model, kept, word_ids))
    assert found.metrics["perplexity"] == pytest.approx(math.exp(-sum(expected) / 4), rel=1e-4)
    assert (found.items, found.skipped, found.truncated) == (4, 1, 1)


def test_a_model_that_knows_the_word_gets_it_right(tokenizer: Any, tmp_path: Path) -> None:
    """Continuations that the model itself would write are right, others are not."""
    model = tiny("gpt_neox", len(tokenizer))
    records = []
    for seed in range(40):
        context = make_text(1, seed=seed).rstrip(".!?;")
        ids = tokenizer(context)["input_ids"]
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        word = tokenizer.decode([best])
        if word.startswith(" ") and word.strip().isalpha():
            records.append({"text": context + word})
    assert records
    items = items_of("lambada", tmp_path / "a.jsonl", records)
    found = evaluate(language_model(model, tokenizer), items)
    greedy = [
        tokenizer(r["text"])["input_ids"]
        == tokenizer(r["text"].rpartition(" ")[0])["input_ids"]
        + tokenizer(" " + r["text"].rpartition(" ")[2])["input_ids"]
        for r in records
    ]
    assert all(greedy)
    assert found.metrics["accuracy"] == 1.0
    wrong = [{"text": record["text"] + "x"} for record in records]
    assert (
        evaluate(
            language_model(model, tokenizer), items_of("lambada", tmp_path / "b.jsonl", wrong)
        ).metrics["accuracy"]
        < 0.5
    )


PAIRS = [
    {"sentence_good": make_text(1, seed=i), "sentence_bad": make_text(1, seed=100 + i), "UID": uid}
    for i, uid in enumerate(["a", "b", "a", "a", "b", "a"])
]


def test_pairs_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny("gpt2", len(tokenizer))
    same = {"sentence_good": "a tie", "sentence_bad": "a tie", "UID": "b"}
    long = {"sentence_good": make_text(9), "sentence_bad": "short", "UID": "b"}
    found = evaluate(
        language_model(model, tokenizer),
        items_of("blimp", tmp_path / "a.jsonl", [*PAIRS, same, long]),
    )
    end = [tokenizer.eos_token_id]

    def total(text: str) -> float:
        return nats(model, end, tokenizer(f" {text}")["input_ids"])

    right = [total(p["sentence_good"]) > total(p["sentence_bad"]) for p in PAIRS]
    assert 0 < sum(right) < len(right)
    assert found.metrics["accuracy"] == pytest.approx(sum(right) / 7)
    in_a = [r for r, pair in zip(right, PAIRS, strict=True) if pair["UID"] == "a"]
    assert found.subsets["a"]["accuracy"] == pytest.approx(sum(in_a) / 4)
    assert (found.subsets["b"]["items"], found.items, found.skipped) == (3, 7, 1)


@pytest.mark.parametrize("head", ["own", "trained"])
def test_masked_pairs_by_hand(masked_tokenizer: Any, tmp_path: Path, head: str) -> None:
    model = tiny("bert", len(masked_tokenizer))
    loaded = language_model(model, masked_tokenizer, head=head)
    found = evaluate(loaded, items_of("blimp", tmp_path / "a.jsonl", PAIRS))
    end, mask = masked_tokenizer.eos_token_id, masked_tokenizer.mask_token_id

    def total(text: str) -> float:
        ids = [end, *masked_tokenizer(text)["input_ids"], end]
        return sum(
            reference(model, Row([*ids[:i], mask, *ids[i + 1 :]], [i], [ids[i]])).log_likelihood
            for i in range(1, len(ids) - 1)
        )

    right = [total(p["sentence_good"]) > total(p["sentence_bad"]) for p in PAIRS]
    assert found.metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert found.settings["score"] == "pseudo-log-likelihood"


def test_choices_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny("gpt_neox", len(tokenizer))
    choices = ["z", "zqxjvb", "é" * 8, "z éé"]  # few tokens; few a character; few a byte
    golds = [0] * 3 + [1] * 5 + [2] * 7 + [3] * 9
    records: list[dict[str, Any]] = [
        {"query": make_text(1, seed=i), "choices": choices, "gold": golds[i]} for i in range(24)
    ]
    records[1] = {"question": records[1]["query"], "choices": choices, "answer": "z éé"}
    records[2]["choices"] = {"text": choices, "label": list("ABCD")}
    found = evaluate(
        language_model(model, tokenizer), items_of("choice", tmp_path / "a.jsonl", records)
    )
    right = {"accuracy": 0, "accuracy_norm": 0, "accuracy_bytes": 0}
    for i, record in enumerate(records):
        ids = tokenizer(record.get("query") or record["question"])["input_ids"]
        values = [nats(model, ids, tokenizer(f" {c}")["input_ids"]) for c in choices]
        gold = 3 if i == 1 else golds[i]
        for name, lengths in {
            "accuracy": [1] * 4,
            "accuracy_norm": [len(c) for c in choices],
            "accuracy_bytes": [len(c.encode()) for c in choices],
        }.items():
            scaled = [v / length for v, length in zip(values, lengths, strict=True)]
            right[name] += scaled.index(max(scaled)) == gold
    assert found.metrics == {name: pytest.approx(n / 24) for name, n in right.items()}
    assert len(set(right.values())) == 3  # or a length could be taken for another


def test_a_limit_takes_the_first_items(tmp_path: Path) -> None:
    first = items_of("blimp", tmp_path / "a.jsonl", PAIRS, limit=2)
    assert first.items == items_of("blimp", tmp_path / "b.jsonl", PAIRS[:2]).items
    assert first.sha256 != items_of("blimp", tmp_path / "b.jsonl", PAIRS).sha256


def test_directories_and_saved_data_sets(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    nameless = [{k: v for k, v in pair.items() if k != "UID"} for pair in PAIRS]
    many = tmp_path / "many"
    many.mkdir()
    write(many / "order.jsonl", nameless[:2])
    parquet.write_table(pyarrow.Table.from_pylist(nameless[2:]), many / "verbs.parquet")
    found = read_items(Task("blimp", str(many))).items
    assert [pair["subset"] for pair in found] == ["order"] * 2 + ["verbs"] * 4  # type: ignore[union-attr]
    table = datasets.Dataset.from_list(PAIRS)
    datasets.DatasetDict({"train": table, "validation": table.select([0])}).save_to_disk(
        tmp_path / "saved"
    )
    assert len(read_items(Task("blimp", str(tmp_path / "saved"))).items) == 1
    assert len(read_items(Task("blimp", str(tmp_path / "saved")), split="train").items) == 6
    with pytest.raises(HeadlessError, match="no split 'test': --split train, validation"):
        read_items(Task("blimp", str(tmp_path / "saved")), split="test")


def test_tasks_as_they_are_written() -> None:
    found = parse_tasks("text:a,b.txt,blimp:c d.jsonl, harness:lambada_openai")
    assert [str(task) for task in found] == [
        "text:a,b.txt",
        "blimp:c d.jsonl",
        "harness:lambada_openai",
    ]
    assert parse_tasks(["text:x", "text:x"]) == [Task("text", "x")]
    assert Task("blimp", "deep/down/pairs.jsonl").name == "pairs.jsonl"


def test_text_that_a_tokenizer_loses_is_said(tmp_path: Path, tokenizer: Any) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", *WORDS, "."]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    lossy = BertTokenizerFast(str(tmp_path / "vocab.txt"), bos_token="[CLS]", eos_token="[SEP]")
    texts = ["the king", "The King", "the king calls Œdipus"]
    for tool, share in ((tokenizer, 0.0), (lossy, 1 - 8 / sum(len(t.encode()) for t in texts))):
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        items = read_items(Task("text", str(path)))
        found = evaluate(language_model(tiny("gpt_neox", len(tool)), tool), items)
        assert found.settings["inexact_share"] == pytest.approx(share)
        assert found.settings["bytes"] == sum(len(text.encode()) for text in texts)
        # [CLS] and [SEP], which BERT's tokenizer puts around a text, are not part of it
        plain = [tool(text, add_special_tokens=False).input_ids for text in texts]
        assert found.settings["tokens"] == sum(map(len, plain))


def test_prepared_text_that_its_tokens_do_not_give_back_is_refused_in_part_too(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_dataset(dataset)
    assert read_items(Task("text", str(dataset)), limit=1).items
    lossy = replace(whole, manifest=replace(whole.manifest, inexact_share=0.1))
    monkeypatch.setattr(tasks, "open_dataset", lambda path: lossy)
    with pytest.raises(HeadlessError, match="does not give its text back"):
        read_items(Task("text", str(dataset)), limit=1)
