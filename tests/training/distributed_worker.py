"""Runs the cases of `test_distributed.py`; started by torchrun, once on each rank, for all of them.

    torchrun --nproc-per-node 2 distributed_worker.py CASES.json OUTPUT

A case is a name, the arguments of `headless pretrain` and what to do besides. Each rank leaves in
OUTPUT/<name>.<rank>.pt what it saw: the rows of tokens of every batch and every value that was
logged, before Lightning rounds it to float32.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from headless.data.blocks import Blocks
from headless.data.collate import IGNORE_INDEX, CausalCollator, Examples
from headless.errors import HeadlessError
from headless.training.assembly import RunCLI, build
from headless.training.pretrain import fit


class SparseCollator(CausalCollator):
    """Of some blocks the first targets alone count: a function of the block, as masks are."""

    def examples(self, blocks: Blocks) -> Examples:
        inputs_RT, targets_RT, _ = super().examples(blocks)
        targets_RT[blocks.indices_R % 3 == 0, 5:] = IGNORE_INDEX
        return Examples(inputs_RT, targets_RT, None)


class Stopped(BaseException):
    """Neither Lightning nor we handle it."""


class Recorder(Callback):
    """Remembers the tokens of every training batch; stops before the batch `stop_at`."""

    def __init__(self, stop_at: int | None) -> None:
        self.rows: list[torch.Tensor] = []
        self.buffers_sent: bool | None = None
        self.stop_at = stop_at

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.batches_seen == self.stop_at:
            raise Stopped
        self.rows.append(batch["input_ids"].clone())
        model = trainer.strategy.model
        if hasattr(model, "will_sync_module_buffers"):
            self.buffers_sent = model.will_sync_module_buffers()


def lose(cli: RunCLI, step: int) -> None:
    """The loss of the second process alone is not a number at a step."""
    module, score = cli.model, cli.model._score

    def spoiled(*arguments: Any) -> Any:
        output = score(*arguments)
        lost = cli.trainer.global_rank == 1 and cli.trainer.global_step == step - 1
        return output._replace(loss=output.loss * torch.nan) if lost else output

    module._score = spoiled


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Train; what this rank saw."""
    cli = build(case["arguments"])
    if case.get("double"):
        cli.model.double()  # Lightning's precision 64-true does not know sharded weights
    recorder = Recorder(case.get("stop_at"))
    cli.trainer.callbacks.insert(1, recorder)
    logged: dict[str, list[float]] = {}
    log = cli.model.log

    def spy(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        logged.setdefault(name, []).append(float(torch.as_tensor(value).detach()))
        log(name, value, *args, **kwargs)

    cli.model.log = spy
    if case.get("sparse"):
        cli.datamodule.collator = SparseCollator(cli.datamodule.vocab_size)
    if case.get("lost_at"):
        lose(cli, case["lost_at"])
    error = None
    try:
        fit(cli)
    except HeadlessError as raised:
        error = str(raised)
    except (Stopped, SystemExit, KeyboardInterrupt):
        assert recorder.stop_at is not None
    return {
        "rows": torch.cat(recorder.rows) if recorder.rows else torch.zeros(0),
        "logged": logged,
        "error": error,
        "buffers_sent": recorder.buffers_sent,
        "rank": cli.trainer.global_rank,
        "held": sum(
            (p.to_local() if hasattr(p, "to_local") else p).numel() for p in cli.model.parameters()
        ),
    }


def main(cases: str, output: str) -> None:
    """All cases, one after another."""
    for case in json.loads(Path(cases).read_text()):
        result = run_case(case)
        torch.save(result, Path(output) / f"{case['name']}.{result['rank']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
