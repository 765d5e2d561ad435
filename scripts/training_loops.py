"""The loops that `bench_training.py` compares: ours and the Hugging Face Trainer's."""

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from benchmarking import synchronize
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from headless.data.blocks import BlockDataset, BlockSampler
from headless.data.collate import CausalCollator
from headless.data.stream import TokenStream
from headless.models.backbone import BackboneConfig, backbone_config
from headless.models.flops import backbone_flops_per_token, scoring_flops
from headless.objectives import Objective
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig, ScheduleConfig

WARMUP = 6  # steps that are not timed: compilation, autotuning, the allocator
PROFILED = 3  # steps
OPTIMIZER = OptimizerConfig(lr=1e-4)


class TimedLoader:
    """A loader that adds up how long its consumer waited for batches."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begin
            if batch is None:
                return
            yield batch


class Stopwatch:
    """Seconds from the first step after the warm-up to the end of the last, and of the first step.

    Step i of all begins with `begin(i)` and ends with `end(i)`, in whatever loop it is.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.last, self.device = steps - 1, device
        self.loader: TimedLoader | None = None
        self.seconds = self.first = self.waited = self._start = 0.0

    def begin(self, index: int) -> None:
        """Start where the warm-up, or the first step, starts."""
        if index in (0, WARMUP):
            synchronize(self.device)
            self._start = time.perf_counter()
            self.waited = self.loader.waited if self.loader else 0.0

    def end(self, index: int) -> None:
        """Stop after the first step and after the last."""
        if index in (0, self.last):
            synchronize(self.device)
            took = time.perf_counter() - self._start
            if index == 0:
                self.first = took
            else:
                self.seconds = took
                self.waited = (self.loader.waited if self.loader else 0.0) - self.waited


class Clock(Callback):
    """The stopwatch, and optionally a profiler of some steps, in Lightning's loop."""

    def __init__(self, stopwatch: Stopwatch, profile: Any = None) -> None:
        self.stopwatch, self.profile = stopwatch, profile
        self.flops = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        """A step begins."""
        self.stopwatch.begin(trainer.global_step)
        self.flops = self.flops or module.training_flops(batch)
        if self.profile is not None and trainer.global_step == WARMUP:
            self.profile.start()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        """A step has ended."""
        self.stopwatch.end(trainer.global_step - 1)
        if self.profile is not None and trainer.global_step == WARMUP + PROFILED:
            synchronize(self.stopwatch.device)
            self.profile.stop()


class Loops:
    """One model at one size, in every loop. A run gives the FLOPs of one of its steps."""

    def __init__(
        self, backbone: BackboneConfig, preset: dict, stream: TokenStream, workers: int
    ) -> None:
        self.backbone, self.preset, self.workers = backbone, preset, workers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = "bf16-mixed" if self.device.type == "cuda" else "32-true"
        self.steps = WARMUP + preset["steps"]
        self.tokens = preset["batch"] * preset["length"]  # of a step
        self.blocks = BlockDataset(stream, preset["length"], 0)

    def loader(self, collate: Any) -> DataLoader:
        """Batches in the order in which training reads them."""
        return DataLoader(
            self.blocks,  # type: ignore[arg-type]
            batch_sampler=BlockSampler(len(self.blocks), self.preset["batch"]),  # type: ignore[arg-type]
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def ours(
        self, objective: Objective, compiled: bool, stopwatch: Stopwatch, profile: Any = None
    ) -> float:
        """A run of ours."""
        module = PretrainingModule(
            objective,
            self.backbone,
            OPTIMIZER,
            ScheduleConfig(warmup_steps=10),
            vocab_size=self.preset["v"],
            sequence_length=self.preset["length"],
            compile=compiled,
        )
        stopwatch.loader = TimedLoader(self.loader(CausalCollator(self.preset["v"])))
        clock = Clock(stopwatch, profile)
        trainer = Trainer(
            accelerator=self.device.type,
            devices=1,
            precision=self.precision,  # type: ignore[arg-type]
            max_steps=stopwatch.last + 1,
            max_epochs=-1,
            gradient_clip_val=1.0,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, stopwatch.loader)
        return clock.flops

    def hugging_face(self, compiled: bool, stopwatch: Stopwatch) -> float:
        """The same model under transformers.Trainer, without what would slow it down."""
        from transformers import (
            AutoModelForCausalLM,
            PrinterCallback,
            TrainerCallback,
            TrainingArguments,
        )
        from transformers import Trainer as HuggingFaceTrainer

        # TrainingArguments leaves there that an earlier row was compiled.
        for name in [n for n in os.environ if n.startswith("ACCELERATE_DYNAMO")]:
            del os.environ[name]
        config = backbone_config(self.backbone, self.preset["v"], bos_token_id=0, eos_token_id=0)
        config.tie_word_embeddings = False
        config.use_cache = False
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=self.backbone.attn_implementation
        )

        def collate(read: Any) -> dict[str, torch.Tensor]:
            tokens = torch.from_numpy(read.own.tokens_RS[:, :-1].copy())
            return {"input_ids": tokens, "labels": tokens}

        class StepClock(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                stopwatch.begin(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                stopwatch.end(state.global_step - 1)

        bench = self

        class WithLoader(HuggingFaceTrainer):
            def get_train_dataloader(self) -> Any:
                loader = self.accelerator.prepare(bench.loader(collate))
                stopwatch.loader = TimedLoader(loader)
                return stopwatch.loader

        with tempfile.TemporaryDirectory() as directory:
            trainer = WithLoader(
                model=model,
                args=TrainingArguments(
                    output_dir=directory,
                    per_device_train_batch_size=self.preset["batch"],
                    max_steps=self.steps,
                    bf16=self.device.type == "cuda",
                    use_cpu=self.device.type == "cpu",
                    optim="adamw_torch_fused",
                    learning_rate=OPTIMIZER.lr,
                    adam_beta1=OPTIMIZER.betas[0],
                    adam_beta2=OPTIMIZER.betas[1],
                    weight_decay=OPTIMIZER.weight_decay,
                    max_grad_norm=1.0,
                    lr_scheduler_type="cosine",
                    warmup_steps=10,
                    torch_compile=compiled,
                    accelerator_config={"non_blocking": True},
                    logging_nan_inf_filter=False,  # it would wait for the GPU at every step
                    logging_strategy="no",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                train_dataset=self.blocks,  # its length only
                callbacks=[StepClock()],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        per_token = backbone_flops_per_token(model.base_model, self.preset["length"])
        scoring = scoring_flops(self.tokens, self.preset["v"], config.hidden_size)
        return self.tokens * per_token + scoring
