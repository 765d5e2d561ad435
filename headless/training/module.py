"""The LightningModule: hidden states of any backbone, scored by any objective.

Shapes: B batch, T time, N = B·T rows, D hidden size, V vocabulary, M unique targets.
"""

import math
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from headless.data.collate import Batch
from headless.errors import HeadlessError
from headless.models.backbone import (
    BackboneConfig,
    build_backbone,
    check_length,
    check_task,
    embedding_table,
    hidden_states,
)
from headless.models.flops import backbone_flops_per_token, scoring_flops
from headless.models.sharding import gathered, is_sharded, shard
from headless.objectives import LMHead, Objective, ObjectiveOutput, UniqueTargets
from headless.objectives.switched import Switched, switched
from headless.training import optim, resume
from headless.training.checkpoint_io import (
    CHECKPOINT_KEY,
    find_checkpoint,
    make_module,
    read_own_checkpoint,
)
from headless.training.compat import datamodule_of
from headless.training.compiling import compiled
from headless.training.devices import can_compile, check_precision
from headless.training.evaluation import Validation
from headless.training.imports import restrict_imports
from headless.training.initial import Source, begin_head, open_source
from headless.training.step import (
    Divergence,
    StepMeans,
    agree,
    clip,
    diverged,
    gradient_norm,
    scale_gradients,
    unsharded,
)
from headless.training.touched import TouchedRows, check_sharding, look_up, tables_by_row

InitHead = Literal["random", "embedding", "source"]


class PretrainingModule(LightningModule):
    """Pre-trains a backbone with an objective.

    Logs `train/loss`, `train/unique_targets` (distinct targets of a micro-batch), `optim/lr`,
    `optim/grad_norm`, and at each validation `val/loss` (the objective's own) and, under the LM
    head that the objective implies, `val/nll`, `val/perplexity`, `val/bits_per_byte`,
    `val/accuracy`; where that head has a calibration bias also `val/nll_uncalibrated`, without it;
    `val/nll_decile_0` ... `val/nll_decile_9` are `val/nll` of the targets in each tenth of the
    training text's occurrences, 0 the most frequent tokens, as far as the validation text has them.
    A masked model's scores are of the tokens that it was asked for; they do not sum up to a text's,
    so that it has no `val/bits_per_byte`.

    Args:
        objective: what is asked of the hidden states.
        backbone: the architecture.
        optimizer: AdamW, Muon or another, its rates and its settings.
        schedule: the learning rate over the steps.
        vocab_size: rows of the embedding table; linked to the data.
        sequence_length: length of the training sequences; linked to the data.
        eos_token_id: the token that ends a document; linked to the data.
        task: "causal" or "masked": what the backbone must be able to see; linked to the data.
        compile: compile the training step with torch.compile; None: on a GPU, where there is a C
            compiler with Python's headers for it to use.
        init_from: begin from the weights and the architecture of a trained model: a run directory,
            a checkpoint, a Hugging Face directory or a hub name. Data with its tokenizer.
        init_head: where a cross-entropy head of its own begins: "random", "embedding" (a copy of
            the input embeddings, as the paper fine-tunes, §3.3) or "source" (the LM head of
            `init_from`, for a headless run the calibrated one).
        freeze_backbone: train the objective's own parameters only.
        switch_at: the share of the steps after which a headless run goes over to cross-entropy,
            from its calibrated head on; null: never.
        val_rows: rows of each validation batch, evenly spaced, that are scored under the LM head,
            where a large vocabulary makes all of them dear; null: all.
    """

    def __init__(
        self,
        objective: Objective,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008 - frozen
        optimizer: optim.OptimizerConfig = optim.OptimizerConfig(),  # noqa: B008 - frozen
        schedule: optim.ScheduleConfig = optim.ScheduleConfig(),  # noqa: B008 - frozen
        vocab_size: int = 50304,
        sequence_length: int = 1024,
        eos_token_id: int = 0,
        task: Literal["causal", "masked"] = "causal",
        compile: bool | None = None,
        init_from: str | None = None,
        init_head: InitHead = "random",
        freeze_backbone: bool = False,
        switch_at: float | None = None,
        val_rows: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self._source: Source | None = None
        self.begins_from: str | None = None
        if init_from is not None:
            with_head = init_head == "source"
            self._source = open_source(init_from, with_head, backbone, self.from_checkpoint)
            self.begins_from = self._source.description
            backbone = self._source.config
            # A checkpoint needs no other file: it begins from its own weights.
            self.hparams.update(backbone=asdict(backbone), init_from=None, init_head="random")
        elif init_head == "source":
            raise HeadlessError("model.init_head source needs model.init_from")
        self.init_head = init_head
        self.backbone_config = backbone
        self.optimizer_config = optimizer
        self.schedule_config = schedule
        self.sequence_length = sequence_length
        # The backbone draws its weights first, so that one seed gives every objective the same.
        if self._source is None:
            self.backbone = build_backbone(
                backbone, vocab_size, bos_token_id=eos_token_id, eos_token_id=eos_token_id
            )
        else:
            self.backbone = self._source.backbone
            vocab_size = self.hparams["vocab_size"] = self._source.vocab_size(vocab_size)
        check_length(self.backbone, sequence_length)
        check_task(self.backbone, task)
        self.task = task
        self.objective = objective if switch_at is None else switched(objective, switch_at)
        self._random_numbers = ExitStack()
        self.switch_step = math.inf  #: the optimizer step that `switch_at` is; inf: none
        self.negatives = objective.negatives  # whose targets the data module makes candidates
        hf_config: Any = self.backbone.config
        self.hidden_size: int = hf_config.hidden_size
        self.vocab_size = vocab_size
        self.objective.setup(vocab_size, self.hidden_size, hf_config.initializer_range)
        self.register_buffer("unigram_counts", torch.zeros(vocab_size, dtype=torch.long))
        self.unigram_counts: Tensor
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            self.backbone.requires_grad_(False).eval()
        _ = self.tables_by_row  # refuses what has none
        self._compile = compile
        self._begin()

    def _begin(self) -> None:
        """What changes in training, besides weights."""
        self.tokenizer_sha256: str | None = None
        self.checkpoint_step = 0  # of the checkpoint that was read last
        # Micro-batches of this rank, as many as there would be had it always been one of as many.
        self.batches_seen = 0
        self._flops_per_token = backbone_flops_per_token(self.backbone, self.sequence_length)
        self._score = compiled(self.score) if self._compile else self.score
        self._validation = Validation(self.hparams.get("val_rows"))
        self._step = StepMeans()
        self._touched: list[TouchedRows] = []
        self._divergence = Divergence()
        self._restored: dict[str, Any] | None = None
        self._settings: list[dict[str, Any]] = []
        self._grad_norm: Tensor | None = None

    @classmethod
    def from_checkpoint(cls, place: Path | str) -> Self:
        """The module of a checkpoint, or of a run's last one, on the CPU and in evaluation mode.

        It needs neither the data nor, where the run began from another model, that model. The file
        is read once: its weights are mapped into memory, its optimizer states are left where they
        are. `checkpoint_step`, `unigram_counts` and `tokenizer_sha256` are the checkpoint's.
        """
        path = find_checkpoint(place)
        restrict_imports()
        return make_module(cls, path, read_own_checkpoint(path)).eval()

    @property
    def embedding_VD(self) -> nn.Parameter:  # noqa: N802 - the shape is part of the name
        return embedding_table(self.backbone)

    @property
    def tables_by_row(self) -> list[nn.Parameter]:
        """The tables of which an optimizer step moves the rows that it touched, and no others."""
        return tables_by_row(self.backbone, self.objective, self.optimizer_config.table)

    def lm_head(self) -> LMHead:
        """The LM head that the objective implies, for today's weights."""
        return self.objective.lm_head(self.embedding_VD, self.unigram_counts)

    def training_flops(self, batch: Batch) -> float:
        """Forward and backward FLOPs of one micro-batch on this rank."""
        tokens, rows = batch["input_ids"].numel(), batch["targets"].numel()
        passes = 1 / 3 if self.freeze_backbone else 1.0  # forward alone
        candidates = self.objective.num_candidates(self.vocab_size, batch["num_unique"], rows)
        scoring = scoring_flops(rows, candidates, self.hidden_size)
        return passes * tokens * self._flops_per_token + scoring

    # -- steps --------------------------------------------------------------------------------

    def scored_states(
        self, input_ids_BT: Tensor, rows_N: Tensor | None, table_UD: Tensor | None = None
    ) -> Tensor:
        """Hidden states [N, D] that are scored: of all B·T positions, or of the named ones."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            hidden_ND = hidden_states(self.backbone, input_ids_BT, table_UD).flatten(0, 1)
        return hidden_ND if rows_N is None else hidden_ND.index_select(0, rows_N)

    def score(
        self,
        input_ids_BT: Tensor,
        targets: Tensor,
        unique: UniqueTargets | None,
        rows_N: Tensor | None = None,
        table_UD: Tensor | None = None,
        head_MD: Tensor | None = None,
    ) -> ObjectiveOutput:
        """The objective's loss of a batch, whose targets are [B, T], or [N] for N rows.

        With `table_UD`, which stands for the embedding table, input ids are places in it; `head_MD`
        stands for the objective's own matrix, where that has one.
        """
        hidden_ND = self.scored_states(input_ids_BT, rows_N, table_UD)
        table = self.embedding_VD if table_UD is None else table_UD
        arguments = hidden_ND, targets.flatten(), table, unique
        if head_MD is None:
            return self.objective(*arguments)
        return torch.func.functional_call(self.objective, {"weight_VD": head_MD}, arguments)

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] under the LM head that the objective implies."""
        return self.lm_head().logits(hidden_states(self.backbone, input_ids_BT))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        is_due = self.trainer.global_step >= self.switch_step
        if is_due and isinstance(self.objective, Switched) and not self.objective.is_switched:
            agree(self.objective.buffers())
            self.objective.switch(self.unigram_counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        unique, input_ids = self._unique(batch), batch["input_ids"]
        rows: list[Tensor] = []
        if self._touched:
            input_ids = batch["table_inputs"]
            unique, rows = look_up(self._touched, batch, self.objective.with_sampled(unique))
        output = self._score(input_ids, batch["targets"], unique, batch.get("rows"), *rows)
        self.batches_seen += 1
        loss = output.loss.detach()
        unique_targets = torch.full_like(loss, batch["num_unique"])  # M; no wait for the device
        values = {"loss": loss, "unique_targets": unique_targets, **output.metrics}
        weight = self._step.add(values, batch["num_targets"], batch["targets"].numel())
        return output.loss if weight == 1.0 else output.loss * weight

    def on_validation_epoch_start(self) -> None:
        has_own = self.device.type == "cuda" and torch.cuda.is_initialized()
        devices = [self.device] if has_own else []
        # Training draws what it would without validation.
        self._random_numbers.enter_context(torch.random.fork_rng(devices))
        agree(self.objective.buffers())  # what a rank saw last, e.g. how many rows
        self.settle_rows()
        with gathered(self):  # a sharded parameter is whole only in here
            self._validation.begin(self.lm_head(), self.unigram_counts, copy=is_sharded(self))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        hidden_ND = self.scored_states(batch["input_ids"], batch.get("rows"))
        targets_N = batch["targets"].flatten()
        output = self.objective(hidden_ND, targets_N, self.embedding_VD, self._unique(batch))
        # A masked model's scores do not sum up to a text's: its batches tell no bytes.
        self._validation.update(output.loss, hidden_ND, targets_N, batch.get("num_bytes", 0.0))

    def on_validation_epoch_end(self) -> None:
        self._random_numbers.close()
        scores = self._validation.close()
        scored = not math.isnan(scores["accuracy"])  # there were targets at all
        if self.trainer.state.fn == "fit" and scored and not math.isfinite(scores["nll"]):
            raise self.diverged()
        if not self.trainer.sanity_checking:
            for name, value in scores.items():
                self.log(f"val/{name}", value, prog_bar=name == "nll", rank_zero_only=False)

    def _unique(self, batch: Batch) -> UniqueTargets | None:
        if not self.objective.needs_unique or "unique_ids" not in batch:
            return None
        return UniqueTargets(batch["unique_ids"], batch["unique_inverse"], batch["unique_counts"])

    # -- optimisation -------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        configs = self.optimizer_config, self.schedule_config
        steps = float(self.trainer.estimated_stepping_batches)
        if isinstance(self.objective, Switched):
            if math.isinf(steps):
                raise HeadlessError("model.switch_at needs trainer.max_steps or trainer.max_epochs")
            self.switch_step = round(self.objective.at * steps)
        optimizer, schedule = optim.build_optimizer(self, *configs, steps)
        self._settings = optim.settings_of(optimizer)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def configure_model(self) -> None:
        """Under a sharding strategy, keep this process's share of the weights only."""
        # DDP would wait for gradients that they never have: their rows are exchanged by themselves.
        by_row, names = {*self.tables_by_row}, self.named_parameters()
        self._ddp_params_and_buffers_to_ignore = [name for name, p in names if p in by_row]
        if self.device_mesh is not None and not is_sharded(self):
            check_sharding(by_row)
            shard(self, self.backbone, self.device_mesh["data_parallel"])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients of the mean over the step's rows, their norm before clipping, and the rate."""
        means, factor = self._step.close(self.trainer.accumulate_grad_batches)
        trained = self.close_rows()
        scale_gradients(trained, factor)
        self._grad_norm = gradient_norm(trained)
        norm = unsharded(self._grad_norm)
        step = self.trainer.global_step + 1
        self._divergence.add(step, means["loss"], norm)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if norm.device.type == "cpu" or step % every == 0:  # where looking is free
            self.require_finite()
        for name, value in means.items():
            self.log(f"train/{name}", value)
        self.log("optim/grad_norm", norm)
        # As a tensor of the host: Lightning would copy a number to the device, and wait for it.
        self.log("optim/lr", torch.tensor(optimizer.param_groups[0]["lr"]))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.objective.after_step(self.embedding_VD)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # By the norm that was just computed, instead of computing it a second time.
        by_norm = None if gradient_clip_algorithm == "value" else self._grad_norm
        if gradient_clip_val:
            clip(self._trained(), gradient_clip_val, by_norm)

    def close_rows(self) -> list[Tensor]:
        """End the step of tables that are moved by row; returns what may have a gradient now."""
        for table in self._touched:
            table.close()
        return self._trained()

    def _trained(self) -> list[Tensor]:
        """What may have a gradient: parameters, and the rows of tables that are moved by row."""
        return [*self.parameters(), *(t.rows for t in self._touched if t.rows is not None)]

    def settle_rows(self) -> None:
        """Before the tables are read: what is moved by row is moved to where it is by now."""
        for touched in self._touched:
            optim.settle(touched.table)

    def require_finite(self) -> None:
        """Refuse, on every process, to go on after a step without finite loss and gradients."""
        self._divergence.check()

    def diverged(self) -> HeadlessError:
        return diverged(self.trainer.global_step + 1)

    # -- checkpoints --------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the unigram counts of the training text; they travel in the state dict."""
        check_precision(self.trainer.precision)
        optim.check_clipping(self.trainer.gradient_clip_val)
        datamodule = datamodule_of(self)
        if datamodule is None or bool(self.unigram_counts.any()):
            return
        self.tokenizer_sha256 = datamodule.tokenizer_sha256
        self.unigram_counts[: len(datamodule.unigram_counts)] = datamodule.unigram_counts
        self.objective.set_unigram(self.unigram_counts)
        begin_head(self, self._source, self.init_head)
        self._source = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.require_finite()
        self.settle_rows()  # in place, and so in what the checkpoint holds already
        checkpoint[CHECKPOINT_KEY] = resume.describe(self, datamodule_of(self))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state, datamodule = checkpoint[CHECKPOINT_KEY], datamodule_of(self)
        resume.check_ids(checkpoint, datamodule, self.vocab_size)
        self.batches_seen = state["batches_seen"]
        if hasattr(datamodule, "train_sampler") and self.trainer.state.fn == "fit":
            sampler = datamodule.train_sampler(self.trainer)
            self.batches_seen = resume.restore_position(checkpoint, sampler, self.trainer)
        self.tokenizer_sha256 = state["tokenizer_sha256"]
        self.checkpoint_step = int(checkpoint["global_step"])
        self._restored = state  # random states wait for the first step

    def on_fit_start(self) -> None:
        self._step, self._divergence = StepMeans(), Divergence()
        self._touched = [TouchedRows(table) for table in self.tables_by_row]
        if self._compile is None and self.device.type == "cuda" and can_compile():
            self._score = compiled(self.score)

    def on_train_start(self) -> None:
        """Continue the random numbers where the checkpoint left them, with today's settings."""
        agree(self.tables_by_row)  # which DDP does not look at
        if self._restored is not None:
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            optim.use_settings(optimizer, self.lr_schedulers(), self._settings)  # type: ignore[arg-type]
            resume.set_random_state(self._restored["random_states"], self.trainer)
            self._restored = None
