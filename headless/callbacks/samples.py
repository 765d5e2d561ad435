"""Text that the model writes while it is trained, under the head that its objective implies."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from headless.callbacks.periodic import PeriodicMonitor, evaluating
from headless.callbacks.progress import progress_of
from headless.models.backbone import hidden_states
from headless.models.sampling import check_prompt, check_sampling, likeliest, sample_tokens
from headless.runs.directory import RunDirectory
from headless.runs.metrics import append_point, truncate_metrics

GUESSES = 5  # for each mask of a prompt


class SampleWriter(PeriodicMonitor):
    """Continues fixed prompts with the same random numbers each time: `samples.jsonl`.

    A masked model cannot continue: it writes its likeliest tokens, with their probabilities, for
    each mask token of a prompt, or for its last token where it has none. A model of item ids,
    which are no text, writes nothing.

    Logs no metric; to W&B it sends a table `samples`.

    Args:
        every_n_steps: optimizer steps between two samples of each prompt.
        prompts: what is continued, or filled in.
        max_new_tokens: length of the continuation.
        temperature: 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; None: among all.
        seed: of the random numbers, which are the sampler's own.
    """

    looks_at_weights = True

    def __init__(
        self,
        every_n_steps: int = 500,
        prompts: list[str] = ["The "],  # noqa: B006 - read only, and shown as the default
        max_new_tokens: int = 60,
        temperature: float = 0.8,
        top_k: int | None = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        check_sampling(max_new_tokens, temperature, top_k, None, seed)
        self.prompts = list(prompts)
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed
        self._ids: list[list[int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the prompts, and drop what a resumed run will write again.

        A prompt that leaves the model no position to continue at is refused before training.
        """
        super().on_train_start(trainer, pl_module)
        if trainer.datamodule.tokenizer is None:  # type: ignore[attr-defined]
            return
        self._ids = [self._encode(trainer, pl_module, prompt) for prompt in self.prompts]
        if trainer.is_global_zero:
            truncate_metrics(self._path(trainer), progress_of(trainer).tokens)

    def _path(self, trainer: Trainer) -> Path:
        return RunDirectory(Path(trainer.default_root_dir)).samples

    def _encode(self, trainer: Trainer, pl_module: Any, prompt: str) -> list[int]:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        masked = pl_module.task == "masked"
        ids = datamodule.tokenizer.encode(
            prompt, add_special_tokens=False, split_special_tokens=not masked
        )
        if masked:
            if datamodule.mask_token_id not in ids:
                ids[-1:] = [datamodule.mask_token_id]
        elif not ids:
            ids = [datamodule.eos_token_id]  # what stands before every document
        check_prompt(pl_module.backbone, len(ids))
        return ids

    def report(self, trainer: Trainer, pl_module: Any) -> None:
        if not self._ids:
            return
        with evaluating(pl_module):
            fill = self._fill if pl_module.task == "masked" else self._sample
            texts = fill(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        progress = progress_of(trainer).point()
        for prompt, text in zip(self.prompts, texts, strict=True):
            append_point(self._path(trainer), {**progress, "prompt": prompt, "text": text})
        for logger in trainer.loggers:
            if hasattr(logger, "log_samples"):
                logger.log_samples(self.prompts, texts)

    def _sample(self, trainer: Trainer, pl_module: Any) -> list[str]:
        """The continuations, each from the same random numbers; the global ones stay."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        tokenizer, head = datamodule.tokenizer, pl_module.lm_head()
        texts = []
        for ids in self._ids:
            generator = torch.Generator(pl_module.device).manual_seed(self.seed)
            with trainer.precision_plugin.forward_context():
                tokens = sample_tokens(
                    pl_module.backbone,
                    head.logits,
                    torch.tensor([ids], device=pl_module.device),
                    self.max_new_tokens,
                    temperature=self.temperature,
                    top_k=self.top_k,
                    generator=generator,
                    eos_token_id=datamodule.eos_token_id,
                )
            texts.append(tokenizer.decode(tokens[0, len(ids) :], skip_special_tokens=True))
        return texts

    def _fill(self, trainer: Trainer, pl_module: Any) -> list[str]:
        """For each prompt, the likeliest tokens at its masks."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        texts = []
        for ids in self._ids:
            tokens_1T = torch.tensor([ids], device=pl_module.device)
            with trainer.precision_plugin.forward_context():
                states_BTD = hidden_states(pl_module.backbone, tokens_1T)
                masked_KD = states_BTD[tokens_1T == datamodule.mask_token_id]
                logits_KV = pl_module.lm_head().logits(masked_KD)
            guesses = likeliest(logits_KV, GUESSES, datamodule.tokenizer)
            texts.append(" / ".join(", ".join(f"{t!r} {p:.2f}" for t, p in row) for row in guesses))
        return texts
