"""What the library's `load` gives: the run's own logits, its states, and the verbs on it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import headless
from headless.errors import HeadlessError
from headless.training.module import PretrainingModule


def test_it_is_the_run(runs: dict[str, Path]) -> None:
    lm = headless.load(runs["headless"])
    module = PretrainingModule.from_checkpoint(runs["headless"])
    assert headless.load(lm) is lm
    assert (lm.head, lm.task, lm.step, lm.name) == ("calibrated", "causal", 16, "headless")
    ids_BT = torch.randint(0, 300, (2, 16))
    with torch.no_grad():
        wanted = module(ids_BT)
        states = module.backbone(input_ids=ids_BT, output_hidden_states=True)
    torch.testing.assert_close(lm.logits(ids_BT), wanted, rtol=1e-4, atol=1e-4)
    assert len(lm.hidden_states(ids_BT)) == 3
    for ours, theirs in zip(lm.hidden_states(ids_BT), states.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs)
    last_BTD, logits_BTV = lm.last_states(ids_BT)
    assert torch.equal(last_BTD, lm.hidden_states(ids_BT)[-1])
    assert logits_BTV is not None
    assert torch.equal(logits_BTV, lm.logits(ids_BT))


def test_the_backbone_alone_makes_no_logits(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the king")
    lm: Any = headless.load(runs["llama"], head=None)
    assert not lm.has_head
    assert lm.hidden_states(torch.tensor([[1, 2]]))[-1].shape == (1, 2, 32)
    with pytest.raises(HeadlessError, match="has no LM head"):
        lm.logits(torch.tensor([[1, 2]]))
    with pytest.raises(HeadlessError, match="opened without an LM head"):
        headless.evaluate(lm, f"text:{tmp_path}")


def test_the_verbs_are_on_it(runs: dict[str, Path], tmp_path: Path) -> None:
    lm = headless.load(runs["headless"])
    assert lm.export(tmp_path / "export")["head"] == "calibrated"
    exported = headless.load(tmp_path / "export")
    assert exported.step is None
    assert exported.generate("the king", temperature=0, max_new_tokens=5) == lm.generate(
        "the king", temperature=0, max_new_tokens=5
    )
    with pytest.raises(HeadlessError, match="is no run"):
        exported.export(tmp_path / "again")
    pytest.importorskip("faiss")
    (near,) = lm.neighbors(" king", k=3)
    found = headless.neighbors(lm, token=" king", k=3)
    assert found["tokens"] == [{"query": "' king'", "neighbors": near}]
    (text,) = headless.evaluate(exported, f"text:{_text(tmp_path)}").results
    assert text.metrics["nll"] > 0
    frame = headless.evaluate(exported, [f"text:{_text(tmp_path)}"]).frame()
    assert frame.set_index("metric").loc["nll", "value"] == text.metrics["nll"]


def _text(directory: Path) -> Path:
    path = directory / "text.txt"
    path.write_text("the king loves a crown. no man sees the sea.")
    return path
