"""A compiled training step is one graph, and few of them for all batches."""

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from headless.data.collate import unique_table
from headless.models.backbone import BackboneConfig
from headless.objectives import (
    Combined,
    ContrastiveWeightTying,
    CrossEntropy,
    Objective,
    UniqueTargets,
)
from headless.objectives.switched import Switched
from headless.training.compiling import compiled
from headless.training.module import PretrainingModule

V, B, T = 1500, 4, 64
OBJECTIVES = {
    "cross-entropy": lambda: CrossEntropy(),
    "cross-entropy in chunks": lambda: CrossEntropy(
        chunk_size=100, unigram_bias="initial", learn_temperature=True, softcap=15.0
    ),
    "CWT": lambda: ContrastiveWeightTying(),
    "CWT, every option": lambda: ContrastiveWeightTying(
        duplicates="logq", num_sampled=16, normalize=True, learn_temperature=True
    ),
    "both": lambda: Combined(),
}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, UniqueTargets]:
    """Tokens, targets and their table; every other batch has few types, so that M changes."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, V if seed % 2 else 60, (B, T + 1))
    ids, inverse, count, _ = unique_table(tokens[:, 1:].reshape(-1), V, pad_multiple=128)
    input_ids, targets, *table = (
        torch.from_numpy(np.ascontiguousarray(x))
        for x in (tokens[:, :-1], tokens[:, 1:], ids, inverse, count)
    )
    return input_ids, targets, UniqueTargets(*table)


def module(objective: Objective, length: int = T) -> PretrainingModule:
    torch.manual_seed(0)
    backbone = BackboneConfig(
        model_type="gpt_neox",
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=length,
    )
    made = PretrainingModule(objective, backbone, vocab_size=V, sequence_length=length)
    made.objective.set_unigram(torch.arange(V))
    return made


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_has_no_graph_break_and_few_graphs(name: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    ours, eager = module(OBJECTIVES[name]()), module(OBJECTIVES[name]())
    # The eager backend traces as any other does, without waiting for a compiler.
    score = compiled(ours.score, fullgraph=True, backend="aot_eager")
    sizes = set()
    for seed in range(6):
        input_ids, targets, unique = batch(seed)
        sizes.add(len(unique.ids_M))
        torch.manual_seed(seed)
        loss = score(input_ids, targets, unique).loss
        torch.manual_seed(seed)
        expected = eager.score(input_ids, targets, unique).loss
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        loss.backward()
        expected.backward()
    for (key, a), b in zip(ours.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(
            a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )
    assert len(sizes) > 1
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_switch_is_one_graph_more() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    ours = module(Switched(ContrastiveWeightTying(), 0.5))
    score = compiled(ours.score, fullgraph=True, backend="aot_eager")
    input_ids, targets, unique = batch(1)
    graphs, losses = [], []
    for step in range(4):
        if step == 2:
            ours.objective.switch(torch.arange(V))
        losses.append(score(input_ids, targets, unique).loss)
        torch.testing.assert_close(losses[-1], ours.score(input_ids, targets, unique).loss)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs == [1, 1, 2, 2]
    assert losses[2] != losses[1]


def test_one_graph_knows_that_512_divides_every_table() -> None:
    """Inductor then reads several scores at a time; a table without that factor is right, too."""
    torch._dynamo.reset()
    columns = []

    def look(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        nodes = [n for n in graph.graph.nodes if n.target is operator.matmul]
        columns.extend(node.meta["example_value"].shape[-1] for node in nodes)
        return graph.forward

    ours = module(ContrastiveWeightTying())
    score = compiled(ours.score, fullgraph=True, backend=look)
    input_ids, targets, _ = batch(1)
    for multiple, graphs in ((1024, 1), (2048, 1), (1536, 1), (100, 2)):
        ids, inverse, count, _ = unique_table(targets.flatten().numpy(), V, multiple)
        unique = UniqueTargets(*map(torch.from_numpy, (ids, inverse, count)))
        assert len(ids) % multiple == 0
        found, wanted = (f(input_ids, targets, unique).loss for f in (score, ours.score))
        torch.testing.assert_close(found, wanted)
        assert len(columns) == graphs
    assert isinstance(columns[0], torch.SymInt)
    assert statically_known_true(columns[0] % 512 == 0)


def test_however_many_runs_a_process_had_the_next_one_is_compiled() -> None:
    """As in a worker of a sweep or a notebook, whose runs have different objectives."""
    forms = [lambda: CrossEntropy(tied=True), lambda: CrossEntropy(tied=True, softcap=15.0)]
    forms += [lambda: CrossEntropy(tied=True, label_smoothing=0.1)]
    input_ids, targets, unique = batch(1)
    with torch._dynamo.config.patch(recompile_limit=2):
        for form in forms:
            score = compiled(module(form()).score, backend="eager")
            torch._dynamo.utils.counters.clear()
            score(input_ids, targets, unique)
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
