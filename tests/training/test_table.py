"""Tables whose rows are moved one by one: gradients, optimizers, runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from headless.callbacks.periodic import require_finite
from headless.data.collate import touched_table, unique_table
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig
from headless.training.optim.table import ROWS, RowGradient, WithTables, row_gradient, settle
from headless.training.pretrain import fit

V, D, B, T = 300, 16, 3, 8
OPTIONS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.0}


def row_gradients(steps: int) -> list[RowGradient]:
    ids = [torch.randperm(V)[: 5 + 7 * (step % 9)] for step in range(steps)]
    return [RowGradient(i, torch.randn(len(i), D, dtype=torch.float64)) for i in ids]


def optimizer_of(table: nn.Parameter, by_row: bool = False, **options: Any) -> WithTables:
    rest = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    return WithTables(rest, [table], OPTIONS | options, by_row)


def rates(steps: int) -> list[float]:
    return [0.03 * min(1.0, (step + 1) / 5) * (1 - step / (2 * steps)) for step in range(steps)]


@pytest.mark.parametrize("betas", [(0.8, 0.95), (0.9, 0.999), (0.0, 0.9)])
def test_lazy_is_adamw_over_the_whole_table(betas: tuple[float, float], monkeypatch: Any) -> None:
    """Where a row is read it is where it would have been; what momentum moved decays but once."""
    monkeypatch.setattr("headless.training.optim.table.CHUNK", 100 * D)
    ours = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = optimizer_of(ours, betas=betas, eps=1e-14)
    reference = torch.optim.AdamW([theirs], betas=betas, eps=1e-14, weight_decay=0.0)
    start, steps = ours.detach().clone(), 60
    for step, (gradient, lr) in enumerate(zip(row_gradients(steps), rates(steps), strict=True)):
        optimizer.param_groups[-1]["lr"] = reference.param_groups[0]["lr"] = lr
        optimizer.catch_up(ours, gradient.ids_U)
        read = gradient.ids_U
        torch.testing.assert_close(ours[read], theirs[read], rtol=0, atol=1e-10)
        setattr(ours, ROWS, gradient)
        theirs.grad = torch.zeros_like(theirs).index_copy(0, *gradient)
        optimizer.step()
        reference.step()
        if step == 20:
            settle(ours)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    if betas[0]:
        assert (ours - theirs).detach().abs().max() > 1e-3  # those that rest
    settle(ours)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    again = ours.detach().clone()
    settle(ours)
    assert torch.equal(ours, again)
    assert (ours - start).detach().abs().max() > 0.1
    optimizer.zero_grad()
    optimizer.step()  # no row was touched
    assert torch.equal(ours, again)


def test_rows_that_rest_for_long_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the sums are kept for fewer steps than the row rested, and are made longer."""
    monkeypatch.setattr("headless.training.optim.table.WINDOW", 150)
    ours = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = optimizer_of(ours, eps=1e-14)
    reference = torch.optim.AdamW([theirs], betas=(0.8, 0.95), eps=1e-14, weight_decay=0.0, lr=0.03)
    for step in range(400):
        ids = torch.arange(V) if step == 0 else torch.arange(3)
        setattr(ours, ROWS, RowGradient(ids, torch.randn(len(ids), D, dtype=torch.float64)))
        theirs.grad = torch.zeros_like(theirs).index_copy(0, *row_gradient(ours))
        optimizer.step()
        reference.step()
    settle(ours)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("by_row", [False, True])
def test_moments_and_decay_against_the_formula(by_row: bool) -> None:
    table = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    width = 1 if by_row else D
    w, m, v = table.detach().clone(), torch.zeros(V, D).double(), torch.zeros(V, width).double()
    optimizer = optimizer_of(table, by_row=by_row, weight_decay=0.02, eps=1e-14)
    for step, gradient in enumerate(row_gradients(12), 1):
        setattr(table, ROWS, gradient)
        optimizer.step()
        g = torch.zeros(V, D).double().index_copy(0, *gradient)
        square = (g**2).mean(dim=1, keepdim=True) if by_row else g**2
        w *= 1 - 0.03 * 0.02
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * square
        size = 0.03 * (1 - 0.95**step) ** 0.5 / (1 - 0.8**step)
        w -= size * m / (v**0.5 + 1e-14)
    settle(table)
    # What momentum moves decays from when the row is caught up on: 12 steps of 6e-4 of it at most.
    torch.testing.assert_close(table.detach(), w, rtol=0, atol=12 * 6e-4 * 0.2)
    state = optimizer.state[table]
    rested_V1 = (12 - state["met_at"])[:, None]
    torch.testing.assert_close(state["exp_avg"] * 0.8**rested_V1, m)
    torch.testing.assert_close(state["exp_avg_sq"] * 0.95**rested_V1, v)


def test_decay_alone_is_exact() -> None:
    table = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    before = table.detach().clone()
    optimizer = optimizer_of(table, weight_decay=0.2)
    for lr in rates(9):
        optimizer.param_groups[-1]["lr"] = lr
        setattr(table, ROWS, RowGradient(torch.arange(2), torch.ones(2, D, dtype=torch.float64)))
        optimizer.step()
    settle(table)
    expected = before * np.prod([1 - 0.2 * lr for lr in rates(9)])
    torch.testing.assert_close(table.detach()[2:], expected[2:], rtol=1e-12, atol=0)


def test_how_often_rows_are_settled_changes_nothing() -> None:
    """Not even where eps is as large as the second moments."""
    ends = []
    for every in (1, 3, 40):
        torch.manual_seed(5)
        table = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
        optimizer = optimizer_of(table, eps=0.05)
        for step, gradient in enumerate(row_gradients(40), 1):
            setattr(table, ROWS, gradient)
            optimizer.step()
            if step % every == 0:
                settle(table)
        settle(table)
        ends.append(table.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-13)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-13)


def test_a_state_of_an_older_version_is_refused() -> None:
    table = nn.Parameter(torch.randn(V, D))
    optimizer = optimizer_of(table)
    setattr(table, ROWS, RowGradient(torch.arange(2), torch.ones(2, D)))
    optimizer.step()
    state = optimizer.state_dict()
    optimizer_of(table).load_state_dict(state)
    del state["state"][1]["met_at"]
    with pytest.raises(HeadlessError, match="older version"):
        optimizer_of(table).load_state_dict(state)


def test_momentum_that_never_fades_is_refused() -> None:
    with pytest.raises(ValueError, match="beta1² < beta2, got 0.99 and 0.95"):
        optimizer_of(nn.Parameter(torch.zeros(V, D)), betas=(0.99, 0.95))


CWT = ContrastiveWeightTying
FORMS: dict[str, tuple[str, Callable[[], Objective]]] = {
    "gpt2": ("gpt2", lambda: CWT(temperature=0.5)),
    "untied": ("gpt_neox", lambda: CWT(tied=False)),
    "cosine": ("llama", lambda: CWT(normalize=True, temperature=0.1)),
    "mask": ("qwen3", lambda: CWT(duplicates="mask")),
    "logq": ("gemma3_text", lambda: CWT(duplicates="logq")),  # whose embeddings are scaled
    "stop": ("gpt_neox", lambda: CWT(stop_gradient=True)),
    "more sampled": ("gpt_neox", lambda: CWT(num_sampled=40)),
    "mask, sampled": ("qwen3", lambda: CWT(num_sampled=20, duplicates="mask", tied=False)),
    "logq, sampled": ("gemma3_text", lambda: CWT(num_sampled=30, duplicates="logq")),
    "unique, sampled": ("gpt_neox", lambda: CWT(num_sampled=100, duplicates="unique", tied=False)),
    "own head": ("gpt_neox", lambda: CrossEntropy(tied=False)),
    "masked": ("bert", lambda: CWT()),
    "modernbert": ("modernbert", lambda: CWT()),
}


def module_of(family: str, objective: Objective, table: str, **more: Any) -> PretrainingModule:
    torch.manual_seed(1)
    sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2}
    extra: dict[str, Any] = {"gemma3_text": {"head_dim": 8}, "qwen3": {"head_dim": 8}}.get(
        family, {}
    )
    backbone = BackboneConfig(
        model_type=family, intermediate_size=32, max_position_embeddings=T, extra=extra, **sizes
    )
    task = "masked" if "bert" in family else "causal"
    module = PretrainingModule(
        objective,
        backbone,
        OptimizerConfig(table=table),  # type: ignore[arg-type]
        vocab_size=V,
        sequence_length=T,
        task=task,  # type: ignore[arg-type]
        **more,
    ).double()
    module.objective.set_unigram(torch.arange(V))
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module.train()


def batch_of(seed: int, vocab_size: int = V) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    inputs, targets = generator.integers(0, vocab_size, (2, B, T))
    targets[0, :3] = -100
    ids, inverse, counts, number = unique_table(targets.reshape(-1), vocab_size, 16)
    tensors = {"input_ids": inputs, "targets": targets, "unique_ids": ids}
    tensors |= {"unique_inverse": inverse, "unique_counts": counts}
    batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in tensors.items()}
    batch |= touched_table(inputs, ids, number, 16)
    return batch | {"num_unique": number, "num_targets": B * T - 3}


def gradients_of(module: PretrainingModule) -> dict[str, Tensor]:
    """Dense ones, of the mean loss of two micro-batches."""
    torch.manual_seed(2)  # of sampled candidates
    for seed in (0, 1):
        (module.training_step(batch_of(seed), seed) / 2).backward()  # type: ignore[arg-type]
    for table in module._touched:
        table.close()
    found = {}
    for name, parameter in module.named_parameters():
        if (rows := row_gradient(parameter)) is not None:
            assert parameter.grad is None
            assert len(rows.ids_U.unique()) == len(rows.ids_U) < V
            parameter.grad = torch.zeros_like(parameter).index_add(0, *rows)
        if parameter.grad is not None:
            found[name] = parameter.grad
    return found


@pytest.mark.parametrize("form", FORMS)
def test_rows_hold_the_gradient_of_the_table(form: str) -> None:
    family, make = FORMS[form]
    dense = module_of(family, make(), "dense")
    lazy = module_of(family, make(), "lazy")
    lazy.on_fit_start()
    assert len(lazy._touched) == len(lazy.tables_by_row)
    expected, found = gradients_of(dense), gradients_of(lazy)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12 * scale)
    if "sampled" in form:  # what was not drawn rests
        scored: Any = row_gradient(lazy.tables_by_row[-1])
        assert scored.grad_UD.any(dim=1).all()


@pytest.mark.parametrize("vocab_size", [40, 100_000])
def test_a_large_vocabulary_is_not_counted_through(vocab_size: int) -> None:
    generator = np.random.default_rng(0)
    targets, others = generator.integers(0, vocab_size, (2, 64))
    targets[::7] = others[::5] = -100
    ids, inverse, counts, number = unique_table(targets, vocab_size, 16, others)
    both = np.concatenate([targets, others])
    wanted, times = np.unique(both[both >= 0], return_counts=True)
    assert (ids[:number] == wanted).all()
    assert (counts[:number] == times).all()
    assert not counts[number:].any()
    assert (np.where(inverse < 0, -100, ids[inverse.clip(0)]) == targets).all()


def test_compiled_it_is_one_graph_however_many_rows() -> None:
    module = module_of("gpt_neox", CWT(), "lazy")
    module.on_fit_start()
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    module._score = torch.compile(module.score, backend=backend, fullgraph=True)
    losses = [module.training_step(batch_of(0, size), 0).item() for size in (V, 30, 150)]  # type: ignore[arg-type]
    module._score = module.score
    plain = [module.training_step(batch_of(0, size), 0).item() for size in (V, 30, 150)]  # type: ignore[arg-type]
    assert losses == pytest.approx(plain)
    assert len(graphs) <= 2  # the first numbers of rows, and any


def test_what_reads_every_row_is_refused(run_arguments: Callable[..., list[str]]) -> None:
    option = "--model.optimizer.table=lazy"
    for objective, more, reason in (
        ("CrossEntropy", ["--model.objective.tied=true"], "reads every row"),
        ("ContrastiveWeightTying", ["--model.switch_at=0.5"], "reads every row"),
        ("ContrastiveWeightTying", ["--model.freeze_backbone=true"], "trains no embedding table"),
    ):
        with pytest.raises(HeadlessError, match=f"table lazy: .*{reason}.*; choose dense"):
            build(run_arguments("run", option, *more, objective=objective))


class Look(Callback):
    """The table as whoever looks at the weights finds it, between two validations."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            file = f"{trainer.default_root_dir}/own.ckpt"
            trainer.save_checkpoint(file)  # as a checkpoint callback of the user's does
            saved = torch.load(file, weights_only=True)["state_dict"]["backbone.embed_in.weight"]
            require_finite(pl_module)
            self.table_VD = pl_module.embedding_VD.detach().clone()
            assert torch.equal(saved, self.table_VD)


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_a_run_ends_with_the_weights_of_a_dense_one(
    run_arguments: Callable[..., list[str]], optimizer: str
) -> None:
    """To rounding, validated and looked at on the way; the checkpoint is of settled tables."""
    runs = {}
    for table in ("dense", "lazy"):
        more = [f"--model.optimizer.table={table}", f"--model.optimizer.class_path={optimizer}"]
        more += [
            "--trainer.val_check_interval=5",
            "--model.optimizer.eps=1e-14",
            "--trainer.precision=64-true",
        ]
        cli = build(run_arguments(table, *more))
        before = cli.model.embedding_VD.detach().clone()
        cli.trainer.callbacks.append(look := Look())
        fit(cli)
        runs[table] = cli.model, before, look.table_VD
    (dense, before, expected), (lazy, same, seen) = runs["dense"], runs["lazy"]
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-7)
    assert torch.equal(before, same)
    for (name, ours), theirs in zip(lazy.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7, msg=name)
    for key in ("val/nll", "optim/grad_norm"):
        numbers = [float(m.trainer.callback_metrics[key]) for m, *_ in runs.values()]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-7)
    saved = torch.load(f"{lazy.trainer.default_root_dir}/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["backbone.embed_in.weight"], lazy.embedding_VD)
