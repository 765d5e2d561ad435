"""Tables whose rows are moved one by one: gradients, optimizers, runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headless.data.collate import touched_table, unique_table
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig
from headless.training.optim.table import ROWS, RowGradient, WithTables, row_gradient
from headless.training.pretrain import fit

V, D, B, T = 300, 16, 3, 8
OPTIONS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.0}


def row_gradients(steps: int) -> list[RowGradient]:
    ids = [torch.randperm(V)[: 5 + 7 * step] for step in range(steps)]
    return [RowGradient(i, torch.randn(len(i), D, dtype=torch.float64)) for i in ids]


def optimizer_of(table: nn.Parameter, by_row: bool = False, **options: Any) -> WithTables:
    rest = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    return WithTables(rest, [table], OPTIONS | options, by_row)


def test_lazy_is_torchs_sparse_adam() -> None:
    ours = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = optimizer_of(ours)
    reference = torch.optim.SparseAdam([theirs], lr=0.03, betas=(0.8, 0.95), eps=1e-8)
    for gradient in row_gradients(8):
        setattr(ours, ROWS, gradient)
        theirs.grad = torch.sparse_coo_tensor(gradient.ids_U[None], gradient.grad_UD, (V, D))
        optimizer.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    optimizer.zero_grad()
    before = ours.detach().clone()
    optimizer.step()  # no row was touched
    assert torch.equal(ours, before)


def test_rowwise_and_decay_against_the_formula() -> None:
    table = nn.Parameter(torch.randn(V, D, dtype=torch.float64))
    w, m, v = table.detach().clone(), torch.zeros(V, D).double(), torch.zeros(V, 1).double()
    optimizer = optimizer_of(table, by_row=True, weight_decay=0.2)
    for step, gradient in enumerate(row_gradients(6), 1):
        setattr(table, ROWS, gradient)
        optimizer.step()
        for id, g in zip(*gradient, strict=True):
            w[id] *= 1 - 0.03 * 0.2
            m[id] = 0.8 * m[id] + 0.2 * g
            v[id] = 0.95 * v[id] + 0.05 * (g**2).mean()
            size = 0.03 * (1 - 0.95**step) ** 0.5 / (1 - 0.8**step)
            w[id] -= size * m[id] / (v[id] ** 0.5 + 1e-8)
        torch.testing.assert_close(table.detach(), w, rtol=1e-12, atol=0)
    state = optimizer.state[table]
    assert state["exp_avg_sq"].numel() == V


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


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_a_run_moves_the_rows_that_it_met(
    run_arguments: Callable[..., list[str]], optimizer: str
) -> None:
    """With all else as it is: the rest of a dense run's first step is the same to rounding."""
    runs = {}
    for table in ("dense", "rowwise"):
        more = [f"--model.optimizer.table={table}", f"--model.optimizer.class_path={optimizer}"]
        cli = build([*run_arguments(table, *more), "--trainer.max_steps=1"])
        before = cli.model.embedding_VD.detach().clone()
        fit(cli)
        runs[table] = cli.model, before
    (dense, before), (lazy, same) = runs["dense"], runs["rowwise"]
    assert torch.equal(before, same)
    moved = (lazy.embedding_VD != before).any(dim=1)
    assert torch.equal(moved, (dense.embedding_VD != before).any(dim=1))
    assert 0 < moved.sum() < len(moved)
    for (name, ours), theirs in zip(lazy.named_parameters(), dense.parameters(), strict=True):
        if ours is not lazy.embedding_VD:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
    norms = [float(m.trainer.callback_metrics["optim/grad_norm"]) for m, _ in runs.values()]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
