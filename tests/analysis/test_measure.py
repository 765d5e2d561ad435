"""One streaming pass: the same statistics as the states themselves, on one process and on two."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from headless.analysis.states.accumulators import StateStatistics
from headless.analysis.states.capture import Point, capture, points_of
from headless.analysis.states.measure import measure, sample_tokens
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

V, D, DEPTH, T = 53, 16, 2, 12


def model_of(family: str = "llama") -> Any:
    torch.manual_seed(3)
    config = BackboneConfig(
        model_type=family,
        hidden_size=D,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    return build_backbone(config, V).eval()


def batches_of(count: int = 5, size: int = 3, length: int = T) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(0, V, (size, length), generator=generator) for _ in range(count)]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_it_is_what_the_states_give(family: str) -> None:
    model, batches = model_of(family), batches_of()
    found = measure(model, batches, reservoir=20)
    assert list(found) == points_of(model)
    states: dict[Point, Tensor] = {}
    with torch.no_grad(), capture(model, lambda p, x: states.__setitem__(p, x.clone())):
        model(input_ids=torch.cat(batches))
    for point, s in found.items():
        whole = StateStatistics(D, T, reservoir=20)
        whole.update(states[point], torch.arange(15))
        for name, value in vars(whole.compute()).items():
            torch.testing.assert_close(getattr(s, name), value, rtol=1e-4, atol=1e-3, msg=name)
        torch.testing.assert_close(s.example_ED, states[point][0], rtol=1e-4, atol=1e-5)


def test_the_progress_and_the_mode() -> None:
    model = model_of().train()
    seen: list[int] = []
    found = measure(
        model, batches_of(2), points=[Point("post", 1)], covariance=(), progress=seen.append
    )
    assert seen == [3 * T, 6 * T]
    assert list(found) == [Point("post", 1)]
    assert float(found[Point("post", 1)].count_G.sum()) == 6 * T
    assert found[Point("post", 1)].outer_DD is None
    assert model.training


def test_covariances_at_some_points_only() -> None:
    wanted = {Point("post", 0)}
    found = measure(model_of(), batches_of(1), covariance=wanted, by_position=wanted)
    assert {p for p, s in found.items() if s.outer_DD is not None} == wanted
    assert {p for p, s in found.items() if s.position_sum_TD is not None} == wanted


def test_tokens_of_the_sample() -> None:
    """The embedding of the token is the state."""
    model, batches = model_of(), batches_of()
    s = measure(model, batches, points=[Point("embed", -1)], reservoir=30)[Point("embed", -1)]
    tokens_K = sample_tokens(s, batches)
    table_VD = model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(s.sample_KD, table_VD[tokens_K])
    next_K = sample_tokens(s, batches, offset=1)
    ids = torch.cat(batches)
    for sequence, position, token in zip(
        s.sample_sequences_K.tolist(), s.sample_positions_K.tolist(), next_K.tolist(), strict=True
    ):
        assert token == (int(ids[sequence, position + 1]) if position + 1 < T else -1)


def test_a_point_that_the_model_has_not() -> None:
    with pytest.raises(HeadlessError, match="no post/09"):
        measure(model_of(), batches_of(1), points=[Point("post", 9)])


def test_a_diverged_model() -> None:
    model = model_of()
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = torch.nan
    with pytest.raises(HeadlessError, match="not finite"):
        measure(model, batches_of(1))


def _rank(rank: int, port: int, output: str) -> None:
    if rank == 1:
        torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        found = measure(model_of(), batches_of(), points=[Point("post", 1)], reservoir=25)
        if rank == 1:
            torch.save(vars(found[Point("post", 1)]), output)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    """This one and another."""
    from lightning.fabric.plugins.environments.lightning import find_free_network_port

    file, port = tmp_path / "rank.pt", find_free_network_port()
    # Forked, as a DataLoader's workers are: a fresh process would import for half a minute.
    other = mp.get_context("fork").Process(target=_rank, args=(1, port, str(file)))
    other.start()
    _rank(0, port, str(file))
    other.join()
    assert other.exitcode == 0
    alone = measure(model_of(), batches_of(), points=[Point("post", 1)], reservoir=25)
    two = torch.load(file)
    for name, value in vars(alone[Point("post", 1)]).items():
        torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_sparse_points_see_every_fourth_batch() -> None:
    torch.manual_seed(0)
    config = BackboneConfig(
        model_type="llama",
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    model = build_backbone(config, 40)
    batches = [torch.randint(40, (2, 8)) for _ in range(6)]
    norm, post = Point("norm1", 0), Point("post", 0)
    every = measure(model, batches)
    some = measure(model, batches, sparse=[norm])
    few = measure(model, [batches[0], batches[4]])
    torch.testing.assert_close(some[post].powers_G4D, every[post].powers_G4D)
    torch.testing.assert_close(some[norm].powers_G4D, few[norm].powers_G4D)
    assert float(some[norm].count_G.sum()) == 2 * 2 * 8


def test_a_pass_keeps_no_memory() -> None:
    """A model that goes on training shares its device with what was looked at."""

    def held() -> int:
        gc.collect()
        return sum(x.numel() for x in gc.get_objects() if type(x) is Tensor and x.is_leaf)

    model, batches = model_of(), batches_of(size=40)
    before = held()
    found = measure(model, batches)
    del found
    assert held() - before < 1000
