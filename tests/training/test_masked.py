"""Masked models: the rows that are scored, the head, and whole runs of BERT and DistilBERT."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM

from headless.data.prepare import prepare
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone
from headless.models.flops import scoring_flops
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective, UniqueTargets
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.assembly import RunCLI, build
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit
from headless.training.validate import validate

FAMILIES = {"bert": "bert-small", "distilbert": "distilbert-multilingual"}
OBJECTIVES = {
    "vanilla": ("CrossEntropy", ["--model.objective.tied=true", "--model.objective.transform=mlm"]),
    "headless": ("ContrastiveWeightTying", []),
}
PROMPTS = '["the king [MASK] the [MASK].", "a crown", ""]'


@pytest.fixture(scope="module")
def masked_dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("masked") / "data"
    options = {"vocab_size": 320, "validation_fraction": 0.1, "mask_token": "[MASK]"}
    prepare([str(text_files)], output, **options)  # type: ignore[arg-type]
    return output


@pytest.fixture
def masked(run_arguments, masked_dataset: Path) -> Callable[..., list[str]]:
    """Arguments of a tiny run of a masked model."""

    def arguments(name: str, kind: str, family: str = "bert", *more: str) -> list[str]:
        objective, options = OBJECTIVES[kind]
        return run_arguments(
            name,
            *("--model.backbone.preset", FAMILIES[family], "--model.backbone.model_type", family),
            *("--data.path", str(masked_dataset), "--data.task", "masked"),
            *options,
            *more,
            objective=objective,
        )

    return arguments


def train_batches(cli: RunCLI) -> list[dict]:
    """Those of the first epoch."""
    cli.datamodule.trainer = cli.trainer
    cli.trainer.strategy.connect(cli.model)
    return list(cli.datamodule.train_dataloader())


# -- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_it_learns_and_every_observer_watches(
    masked, tmp_path: Path, kind: str, family: str
) -> None:
    size = ("--model.backbone.hidden_size", "32", "--data.sequence_length", "32")
    size += ("--data.batch_size", "32", "--trainer.max_steps", "200")
    rate = ("--model.optimizer.lr", "5e-3", "--model.schedule.warmup_steps", "20")
    watch = ("--trainer.val_check_interval", "50", "--laboratory.enabled", "true")
    watch += ("--samples.every_n_steps", "100", "--samples.prompts", PROMPTS)
    cli = build(masked("run", kind, family, *size, *rate, *watch))
    fit(cli)
    run = RunDirectory(tmp_path / "runs" / "run")
    points = read_metrics(run.metrics)
    nll = [p["val/nll"] for p in points if "val/nll" in p]
    p = cli.datamodule.unigram_counts.double()
    p = p[p > 0] / p.sum()
    unigram_entropy = -(p * p.log()).sum().item()
    assert nll[-1] < unigram_entropy - 0.03  # better than knowing how frequent words are
    assert nll[-1] < nll[0] - 0.03
    keys = {key for point in points for key in point}
    assert {"geometry/anisotropy/layer_02", "val/accuracy", "val/loss"} <= keys
    assert "val/bits_per_byte" not in keys
    assert ("val/nll_uncalibrated" in keys) == (kind == "headless")
    last = [p for p in points if "train/loss" in p][-1]
    assert last["progress/tokens"] == 200 * 32 * 32  # of the input, whatever is scored
    samples = read_metrics(run.samples)
    assert [s["prompt"] for s in samples] == ["the king [MASK] the [MASK].", "a crown", ""] * 2
    scores = validate(run.path, {"data.val_batch_size": 5})
    assert scores["val/nll"] == pytest.approx(nll[-1], rel=1e-5)  # the same masks again


def test_the_likeliest_tokens_are_written_for_each_mask(masked, tmp_path: Path) -> None:
    cli = build(masked("run", "headless", "bert", "--samples.prompts", PROMPTS))
    fit(cli)
    model, tokenizer = cli.model.eval(), cli.datamodule.tokenizer
    mask = tokenizer.mask_token_id
    king = tokenizer.encode("the king [MASK] the [MASK].", split_special_tokens=False)
    crown = tokenizer.encode("a crown")
    samples = read_metrics(tmp_path / "runs/run/samples.jsonl")
    for ids, sample in zip((king, [*crown[:-1], mask], [mask]), samples, strict=True):
        guesses = []
        for position in [i for i, token in enumerate(ids) if token == mask]:
            with torch.no_grad():
                shares = model(torch.tensor([ids]))[0, position].softmax(-1)
            best = shares.argsort(descending=True)[:5].tolist()
            written = [f"{tokenizer.decode([token])!r} {shares[token]:.2f}" for token in best]
            guesses.append(", ".join(written))
        assert sample["text"] == " / ".join(guesses)
    assert samples[0]["text"].count(" / ") == 1


class Killed(BaseException):
    """Neither Lightning nor we handle it: the nearest thing to a kill inside a process."""


class Watcher(Callback):
    """Remembers every batch; dies at one."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.seen: dict[int, int] = {}
        self.kill_at = kill_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # noqa: ANN001
        if pl_module.batches_seen == self.kill_at:
            raise Killed
        content = [batch[key].numpy().tobytes() for key in ("input_ids", "targets", "rows")]
        self.seen[pl_module.batches_seen] = hash(b"".join(content))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_stopped_run_ends_as_one_that_never_was(masked, tmp_path: Path, kind: str) -> None:
    """With other masks in its second epoch than in its first."""
    more = ("--data.batch_size", "40", "--trainer.max_steps", "28", "--checkpoint.every_n_steps")
    more += ("4", "--model.backbone.extra", '{"hidden_dropout_prob": 0.1}')

    def run(name: str, watcher: Watcher, *options: str) -> RunCLI:
        cli = build(masked(name, kind, "bert", *more, *options))
        cli.trainer.callbacks.insert(1, watcher)
        fit(cli)
        return cli

    whole, stopped, rest = Watcher(), Watcher(18), Watcher()
    expected = run("whole", whole)
    epoch = expected.trainer.num_training_batches
    assert 4 < epoch < 16  # the kill falls into a later epoch
    with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
        run("stopped", stopped)
    resumed = run("stopped", rest, "--run.resume", "true")
    assert stopped.seen | rest.seen == whole.seen
    assert len(rest.seen) == 12
    assert len(set(whole.seen.values())) == len(whole.seen)
    weights = resumed.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in expected.model.state_dict().items())
    nll = [
        [p["val/nll"] for p in read_metrics(tmp_path / f"runs/{n}/metrics.jsonl") if "val/nll" in p]
        for n in ("whole", "stopped")
    ]
    assert nll[0] == nll[1]


def test_both_objectives_see_the_same_inputs_and_labels(masked) -> None:
    batches = []
    for kind in OBJECTIVES:
        cli = build(masked(kind, kind, "bert", "--data.num_workers", str(len(batches))))
        batches.append(train_batches(cli))
        text = cli.datamodule.dataset.split("train")[:]
    assert len(batches[0]) == len(batches[1]) > 10
    for ours, theirs in zip(*batches, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), key
    # The labels are the text's: filled in, every block is a piece of it.
    pieces = {text[i : i + 16].tobytes() for i in range(0, len(text) - 15, 16)}
    for batch in batches[0]:
        clean = batch["input_ids"].flatten().clone()
        clean[batch["rows"]] = batch["targets"]
        valid = batch["targets"] != -100
        assert valid.view(8, 3).any(dim=1).all()
        for row in clean.view(8, 16)[valid.view(8, 3).all(dim=1)]:
            assert row.numpy().tobytes() in pieces


def test_accumulated_negatives_are_the_other_micro_batches_labels(masked) -> None:
    """Each process knows the masks of all others."""
    more = ("--trainer.accumulate_grad_batches", "3", "--model.objective.negatives", "accumulated")
    plain = train_batches(build(masked("a", "headless")))
    wide = train_batches(build(masked("b", "headless", "bert", *more)))
    for first in range(0, len(plain), 3):
        targets = torch.cat([b["targets"] for b in plain[first : first + 3]])
        counts = targets[targets != -100].bincount(minlength=320)
        for batch in wide[first : first + 3]:
            m = batch["num_unique"]
            found = torch.zeros(320, dtype=torch.long)
            found[batch["unique_ids"][:m]] = batch["unique_counts"][:m]
            assert torch.equal(found, counts)


# -- rows and head --------------------------------------------------------------------------------


def module_of(objective: Objective, family: str = "bert") -> PretrainingModule:
    """In float64."""
    extra = {"hidden_dropout_prob": 0.0} if family == "bert" else {"dropout": 0.0}
    config = BackboneConfig(
        FAMILIES[family],
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        extra=extra,
    )
    module = PretrainingModule(
        objective, config, vocab_size=50, sequence_length=16, task="masked"
    ).double()
    with torch.no_grad():  # larger than at the beginning, so that nothing is near 0
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize(
    "objective", [CrossEntropy(tied=True, transform="mlm"), ContrastiveWeightTying()]
)
def test_scoring_some_rows_is_scoring_all_with_the_others_ignored(objective) -> None:
    module = module_of(objective)
    ids = torch.randint(0, 50, (4, 16))
    rows = torch.tensor([0, 3, 17, 31, 40, 63, 0, 0])
    targets = torch.tensor([0, 4, 9, 4, 20, 49, -100, -100])
    everywhere = torch.full((4, 16), -100)
    everywhere.view(-1)[rows[:6]] = targets[:6]
    results = []
    for labels, places in ((targets, rows), (everywhere, None)):
        module.zero_grad()
        loss = module.score(ids, labels, None, places).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in module.parameters())])
    assert len(results[0]) > 30
    for some, all_rows in zip(*results, strict=True):
        torch.testing.assert_close(some, all_rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_step_is_one_graph(family: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    module = module_of(CrossEntropy(tied=True, transform="mlm"), family)
    # The eager backend traces as any other does, without waiting for a compiler.
    score = torch.compile(module.score, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        torch.manual_seed(seed)
        ids, rows = torch.randint(0, 50, (4, 16)), torch.randperm(64)[:12]
        targets = torch.randint(0, 50, (12,))
        loss = score(ids, targets, None, rows).loss
        torch.testing.assert_close(loss, module.score(ids, targets, None, rows).loss)
        loss.backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_flops_are_of_all_tokens_and_the_scored_rows() -> None:
    module = module_of(ContrastiveWeightTying()).float()
    module.backbone.set_attn_implementation("eager")
    ids, rows = torch.randint(0, 50, (4, 16)), torch.arange(12)
    targets = torch.arange(12)
    batch = {"input_ids": ids, "targets": targets, "rows": rows, "num_unique": 12}
    unique = UniqueTargets(targets, torch.arange(12), torch.ones(12, dtype=torch.long))
    with FlopCounterMode(display=False) as counter:
        module.score(ids, targets, unique, rows).loss.backward()
    assert module.training_flops(batch) == pytest.approx(counter.get_total_flops(), rel=1e-9)
    everything = {**batch, "targets": torch.zeros(4, 16)}
    difference = module.training_flops(everything) - module.training_flops(batch)
    assert difference == scoring_flops(64 - 12, 12, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vanilla_head_is_the_familys(family: str) -> None:
    """The logits of BertForMaskedLM and DistilBertForMaskedLM with the same weights."""
    module = module_of(CrossEntropy(tied=True, transform="mlm"), family).eval()
    theirs = AutoModelForMaskedLM.from_config(copy.deepcopy(module.backbone.config)).double().eval()
    base = getattr(theirs, theirs.base_model_prefix)
    base.load_state_dict(module.backbone.state_dict())  # all of them, and no others
    transform, bias = module.objective.transform, module.objective.bias_V
    if family == "bert":
        head = theirs.cls.predictions
        dense, norm, decoder = head.transform.dense, head.transform.LayerNorm, head.decoder
    else:
        dense, norm = theirs.vocab_transform, theirs.vocab_layer_norm
        decoder = theirs.vocab_projector
    dense.load_state_dict(transform.dense.state_dict())
    norm.load_state_dict(transform.norm.state_dict())
    with torch.no_grad():
        decoder.bias.copy_(bias)
    assert decoder.weight is base.get_input_embeddings().weight
    ids = torch.randint(0, 50, (3, 16))
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(module(ids), expected, rtol=1e-10, atol=1e-10)


# -- mistakes -------------------------------------------------------------------------------------


def test_wrong_pairs_are_told_before_training(masked, run_arguments, dataset: Path) -> None:
    options = ("--model.backbone.preset", "null", "--model.backbone.model_type", "gpt2")
    with pytest.raises(HeadlessError, match="gpt2 sees the left one only: choose data.task causal"):
        build(masked("run", "headless", "bert", *options))
    with pytest.raises(HeadlessError, match="bert sees the tokens that a causal .* data.task"):
        build(masked("run", "headless", "bert", "--data.task", "causal"))
    with pytest.raises(HeadlessError, match="no mask token.* --mask_token"):
        build(masked("run", "headless", "bert", "--data.path", str(dataset)))


def test_the_task_travels_with_the_checkpoint(masked, tmp_path: Path) -> None:
    fit(build(masked("run", "vanilla", "bert", "--trainer.max_steps", "2")))
    path = tmp_path / "runs/run/checkpoints/last.ckpt"
    module = PretrainingModule.load_from_checkpoint(path)
    assert module.task == "masked"
    assert math.isfinite(float(module(torch.arange(10)[None]).sum()))


def test_a_backbone_alone_has_no_pooler() -> None:
    backbone = build_backbone(BackboneConfig("bert-small", num_hidden_layers=1), 50)
    assert not [name for name in backbone.state_dict() if "pooler" in name]
