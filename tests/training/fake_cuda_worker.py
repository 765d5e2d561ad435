"""Runs the cases of `test_fake_cuda.py` on CUDA tensors without values, in the CPU build of torch.

    python fake_cuda_worker.py STUB.so CASES.json FOUND.json

A case is a backbone's family, an objective, an optimizer, and whether the step is compiled. Found
are its faults, a line for each: operators whose result the host waits for, operands of the host
among those of the device, copies to the device, whatever raises; and how many graphs it made.
"""

import ctypes
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)  # before torch asks whether there is a device

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from headless import objectives  # noqa: E402
from headless.data.blocks import BatchBlocks, Blocks  # noqa: E402
from headless.data.collate import CausalCollator  # noqa: E402
from headless.data.masking import MaskedCollator  # noqa: E402
from headless.models.backbone import BackboneConfig, unfilled_weights  # noqa: E402
from headless.models.sampling import sample_tokens  # noqa: E402
from headless.training.compiling import compiled as make_compiled  # noqa: E402
from headless.training.module import PretrainingModule  # noqa: E402
from headless.training.optim import OptimizerConfig  # noqa: E402

V, B, T = 4096, 8, 256
SIZES = {
    **{"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 128, "max_position_embeddings": T},
}
ROOT = Path(__file__).resolve().parents[2]


def place(frames: Any) -> str:
    """The project's own line, the innermost."""
    own = [f for f in frames if f.filename.startswith(f"{ROOT}/headless/")] or frames[-1:]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} `{own[-1].line}`"


class Watch(TorchDispatchMode):
    """Notes what a GPU would make the host wait for; the answer to each such question is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.operators = 0

    def note(self, what: str) -> None:
        self.faults.append(f"{what} at {place(traceback.extract_stack()[:-2])}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        devices = {
            x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)
        }
        if func is torch.ops.aten._local_scalar_dense.default:
            if devices == {"cuda"}:
                self.note("the host waits")
            return (
                True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
            )
        made = func(*args, **(kwargs or {}))
        if len(devices) > 1:
            self.note(f"{func} has operands of the host and of the device")
        elif devices == {"cpu"} and getattr(made, "device", torch.device("cpu")).type == "cuda":
            self.note(f"{func} copies to the device")
        return made


def make_batch(mode: FakeTensorMode, types: int, step: "Step") -> dict[str, Any]:
    """What the collator makes of text with so many types of tokens, without its values."""
    tokens = np.random.default_rng(0).integers(0, types, (B, T if step.masked else T + 1))
    own = Blocks(0, np.arange(B), tokens, np.full(B, T))
    none = Blocks(0, np.arange(0), tokens[:0], np.full(0, T))
    collator = MaskedCollator(V, 0, np.arange(V), 0.5) if step.masked else CausalCollator(V)
    collator.with_table = bool(step.module.tables_by_row)
    batch: dict[str, Any] = dict(collator(BatchBlocks(own, none)))
    tensors = {name: x for name, x in batch.items() if isinstance(x, torch.Tensor)}
    with mode, torch.device("cuda:0"):
        return batch | {name: torch.empty(x.shape, dtype=x.dtype) for name, x in tensors.items()}


def make_objective(kind: str, options: dict[str, Any]) -> Any:
    """Of a class and its arguments, some of which are objectives."""
    parts = {k: make_objective(*v) if isinstance(v, list) else v for k, v in options.items()}
    return getattr(objectives, kind)(**parts)


class Step:
    """A module on the device that is not there, its optimizer and its schedule."""

    def __init__(self, mode: FakeTensorMode, case: dict[str, Any]) -> None:
        self.masked = case["family"] in ("bert", "distilbert", "modernbert")
        with mode, torch.device("cuda:0"), unfilled_weights():
            self.module: Any = PretrainingModule(
                make_objective(*case["objective"]),
                BackboneConfig(model_type=case["family"], **SIZES, extra=case["extra"]),
                OptimizerConfig(case["optimizer"], table=case["table"]),
                vocab_size=V,
                sequence_length=T,
                task="masked" if self.masked else "causal",
                switch_at=case["switch_at"],
                compile=False,
            )
            self.module.objective.set_unigram(self.module.unigram_counts)
        self.module._trainer = SimpleNamespace(
            **{"global_step": 1, "log_every_n_steps": 50, "accumulate_grad_batches": 1},
            estimated_stepping_batches=100,
        )
        self.faults: list[str] = []
        self.module.log = self.log
        with mode:
            [self.optimizer], [schedule] = self.module.configure_optimizers()
            self.module.on_fit_start()
            if case["is_switched"]:
                self.module.objective.switch(self.module.unigram_counts)
        self.schedule = schedule["scheduler"]

    def log(self, name: str, value: Any, prog_bar: bool = False, **_: Any) -> None:
        """What Lightning would do with it after each micro-batch."""
        if prog_bar or not isinstance(value, torch.Tensor):
            self.faults.append(f"{name}: a number is copied to the device, one of a bar is read")

    def gradients(self, batch: dict[str, Any]) -> None:
        self.module.on_train_batch_start(batch, 0)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = self.module.training_step(batch, 0)
        loss.backward()

    def train(self, batch: dict[str, Any]) -> None:
        """One training step, as Lightning calls its parts."""
        self.gradients(batch)
        module = self.module
        module.on_before_optimizer_step(self.optimizer)
        module.configure_gradient_clipping(self.optimizer, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            module.objective.after_step(module.embedding_VD)
        self.optimizer.zero_grad()
        self.schedule.step()

    @torch.no_grad()
    def validate(self, batch: dict[str, Any]) -> None:
        """One validation batch."""
        self.module.eval()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            self.module.validation_step(batch, 0)

    def sample(self) -> None:
        """Forty tokens, with an end that never comes: each look is a wait."""
        prompt = torch.zeros(2, 3, dtype=torch.long, device="cuda:0")
        head = self.module.lm_head().logits
        sample_tokens(self.module.backbone, head, prompt, 40, temperature=0, eos_token_id=1)


def eager(mode: FakeTensorMode, case: dict[str, Any]) -> dict[str, Any]:
    step = Step(mode, case)
    batch = make_batch(mode, V, step)
    works: list[Callable[[], None]] = [lambda: step.train(batch), lambda: step.validate(batch)]
    if case["does"] == "sampling":
        works = [step.sample]
    else:
        with mode, Watch():  # what is asked once a validation is not looked at
            step.module.on_validation_epoch_start()
    watch = Watch()
    with mode, watch:
        for work in works:
            work()
    return {"faults": watch.faults + step.faults, "operators": watch.operators}


def compiled(mode: FakeTensorMode, case: dict[str, Any]) -> dict[str, Any]:
    """Two tables of unlike lengths in one graph."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    step = Step(mode, case)
    step.module._score = make_compiled(step.module.score, fullgraph=True, backend="aot_eager")
    batches = [make_batch(mode, types, step) for types in (900, V)]
    with mode:
        for batch in batches:
            step.gradients(batch)
    return {
        "faults": [],
        "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        "tables": [len(batch["unique_ids"]) for batch in batches],
    }


def main() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    FakeTensorMode.__deepcopy__ = lambda self, _: self  # torchmetrics copies its states
    found = {}
    for name, case in json.loads(Path(sys.argv[2]).read_text()).items():
        work = compiled if case["does"] == "compiled steps" else eager
        try:
            found[name] = work(FakeTensorMode(), case)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault
            at = place(traceback.extract_tb(error.__traceback__))
            found[name] = {"faults": [f"{type(error).__name__} at {at}: {str(error)[:600]}"]}
    Path(sys.argv[3]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
