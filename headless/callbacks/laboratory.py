"""The laboratory while a model is trained: the cheap preset as curves, all of it at the end."""

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from headless.callbacks.periodic import (
    Cadence,
    EveryNSteps,
    evaluating,
    require_finite,
    switch_step_of,
)
from headless.callbacks.progress import log_point, progress_of
from headless.errors import HeadlessError, one_line
from headless.geometry import ranks_of
from headless.geometry.marchenko_pastur import effective_rank_of_noise
from headless.models.backbone import is_custom, num_parameters
from headless.models.sharding import is_sharded
from headless.runs.directory import RunDirectory

FIRST_WEIGHTS = 1 << 30  # values of a backbone of which a copy is kept: 4 GiB
AT_LEAST = 8  # sequences
ENOUGH = 8  # states for each dimension: noise then has an effective rank of 0.98 of the width


class LaboratoryMonitor(Callback):
    """Looks inside the model before, while and after it is trained, outside training time.

    What it logs are the scalars of `headless analyze --preset cheap` on a fixed text, each under
    `analysis/` and its name there, and of the residual stream two by layer under `geometry/`.
    POINT is a place in the stream: `embed`, `post/00`, ... after each block, `norm_f` after the
    final norm; `layer_00` is `embed`, the last layer the last POINT. ROLE is a matrix of a block:
    `q`, `k`, `v`, `o`, `gate`, `up`, `down`, as a mean over the blocks. TABLE is `embedding`,
    `head` (where it is another matrix) or `positions`. WHERE is a POINT or a TABLE.

    | key | meaning |
    | --- | --- |
    | `geometry/anisotropy/LAYER` | mean cosine of all pairs of states, without position 0 |
    | `geometry/effective_rank/LAYER` | Roy and Vetterli, centred, without position 0 |
    | `geometry/effective_rank/null` | that of as many states drawn from a Gaussian |
    | `geometry/alpha_req/LAYER` | the eigenvalues of their covariance fall as rank to its negative |
    | `geometry/alpha_req/null` | that of as many states drawn from a Gaussian |
    | `geometry/states` | how many states there are |
    | `geometry/VARIANT/embedding` | both, of the input embedding table's rows |
    | `analysis/table_spectra/TABLE/MEASURE` | strongest direction's share, ranks, exponents, norm, values outside noise |
    | `analysis/weight_spectra/ROLE/MEASURE` | rank exponent, its R² and knee, tail exponent alpha, ranks, strongest direction |
    | `analysis/weight_values/ROLE/MEASURE` | moments of the entries: excess kurtosis, tail ratio, skew, std, ... |
    | `analysis/weight_norms/ROLE/MEASURE` | size of the entries, spectral norm, with the norm's gain folded in |
    | `analysis/weight_movement/ROLE/MEASURE` | distance and cosine, from and with the weights before training |
    | `analysis/norm_gains/PLACE/MEASURE` | gains and biases of the norms (PLACE `norm1`, `norm2`, `final`) |
    | `analysis/anisotropy/WHERE` | mean cosine of all pairs, without position 0, or of a table's rows |
    | `analysis/anisotropy/WHERE/VARIANT` | of position 0, with it, within texts, centred, without the largest dimensions, ... |
    | `analysis/alignment_uniformity/POINT/MEASURE` | squared distance of states of one token, and of random pairs |
    | `analysis/alignment_uniformity/next_token` | of a state and the head's row of what follows |
    | `analysis/alignment_uniformity/next_token/VARIANT` | the same in random pairs |
    | `analysis/activations/POINT/VARIANT` | excess kurtosis pooled, of the median and of the largest dimension |
    | `analysis/outliers/POINT/MEASURE` | outlier dimensions: how many, how large, over blocks and tokens |
    | `analysis/covariance_spectra/POINT/MEASURE` | participation ratio, entropy rank, exponent, first share, variance |
    | `analysis/norms/POINT/MEASURE` | mean norm of position 0 (first), of all others (rest), and their ratio |
    | `analysis/norms/MEASURE` | position 0 in the middle blocks, over the others; growth a block |
    | `analysis/unigram/VARIANT` | log p(v) in the states and the biases, as the head reads it; by POINT |
    | `analysis/ngrams/VARIANT` | divergence from uniform and unigram predictions; nats by decile of frequency |
    | `analysis/bottleneck/VARIANT` | gradient that the head loses: whole softmax, random columns, contrast |

    What is not defined (a kurtosis of equal gains) is left out. `metrics.jsonl` has all of it; to
    W&B go `geometry/`, the headlines (`wandb_logger.HEADLINES`), histograms
    (`analysis/histograms/...`), and at the end, where all analyses are asked for, every picture
    (`analysis/figures/...`).

    Args:
        enabled: look at all.
        every_n_validations: validations between two looks; also before the first step and at the
            end.
        every_n_steps: optimizer steps between two looks in place of that; "log": at steps 0, 1, 2,
            3, 4, 6, 8, 12, … (two an octave), which show how training begins; and at as many
            after a switch of the objective (model.switch_at), which is looked at itself.
        num_sequences: of validation text, of the training's length (512 tokens at the most),
            evenly over the split; None: eight, or more where those have fewer states than eight
            times the hidden size, which bounds every rank.
        at_end: "full" makes the whole analysis of the trained model, as `headless analyze --model
            RUN` does, into RUN/analysis; that takes minutes.
        tokens: of validation text for that.
        seed: of its null models.
    """  # noqa: E501 - a table's row is one line

    def __init__(
        self,
        enabled: bool = True,
        every_n_validations: int = 1,
        num_sequences: int | None = None,
        at_end: Literal["nothing", "full"] = "nothing",
        tokens: int = 65_536,
        seed: int = 0,
        every_n_steps: EveryNSteps | None = None,
    ) -> None:
        least = {"every_n_validations": (every_n_validations, 1), "tokens": (tokens, 1)}
        least |= {"num_sequences": (2 if num_sequences is None else num_sequences, 2)}
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 4294967295, got {seed}")
        self.enabled = enabled
        self.every_n_validations = every_n_validations
        self.num_sequences = num_sequences
        self.at_end = at_end
        self.tokens = tokens
        self.seed = seed
        self.every_n_steps = every_n_steps
        self._cadence = None if every_n_steps is None else Cadence(every_n_steps)
        self._subject: Any = None
        self._validations = 0
        self._reported = -1
        self._said: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the text and the weights before training, and look at the untrained model."""
        self._reported, self._subject = -1, None
        if not self.enabled:
            return
        with progress_of(trainer).paused():
            self._subject = self._begin(trainer, pl_module)
        if self._cadence is not None:
            self._cadence.begin(trainer.global_step, switch_step_of(pl_module))
        if trainer.global_step == 0:
            self._report(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """The model after some of the steps."""
        if self._cadence is None or self._subject is None:
            return
        if self._cadence.due(trainer.global_step):
            self._report(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model that was just validated, every so many validations."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._subject is None:
            return
        self._validations += 1
        if self._cadence is None and self._validations % self.every_n_validations == 0:
            self._report(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The trained model, unless it was looked at."""
        if self._subject is not None and self._reported != trainer.global_step:
            self._report(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The whole analysis, of the checkpoint that the run has just written."""
        if self.at_end == "full" and trainer.is_global_zero:
            run = RunDirectory(Path(trainer.default_root_dir))
            try:
                self._whole(trainer, run)
            except (HeadlessError, torch.OutOfMemoryError) as error:
                reason = one_line(error)
                self._say(
                    f"no analysis was written: {reason}; headless analyze --model {run.path} "
                    "makes one"
                )

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def _begin(self, trainer: Trainer, pl_module: Any) -> Any:
        """The run with a text; without one where there is too little."""
        from headless.analysis.session import Subject, length_for, take_text

        data = trainer.datamodule  # type: ignore[attr-defined]
        subject = Subject(
            Path(trainer.default_root_dir).name,
            model=None,
            counts_V=pl_module.unigram_counts,
            initial=_first_weights(trainer, pl_module.backbone),
            mask_token=data.mask_token_id if pl_module.task == "masked" else None,
            bos=data.eos_token_id,
        )
        length = length_for(pl_module.backbone, pl_module.sequence_length)
        states = max(1, length - 1)  # of a sequence: without position 0
        enough = max(AT_LEAST, -(-ENOUGH * pl_module.hidden_size // states))
        tokens = (self.num_sequences or enough) * length
        try:
            return take_text(subject, data.dataset, data.path, tokens=tokens, length=length)
        except HeadlessError as error:
            self._say(f"the weights alone are looked at: {error}")
            return subject

    def _report(self, trainer: Trainer, pl_module: Any) -> None:
        """Look and log, outside training time."""
        self._reported = trainer.global_step
        with progress_of(trainer).paused():
            require_finite(pl_module)
            try:
                findings, geometry = self._look(trainer, pl_module)
            except HeadlessError as error:  # on every process, or on the first one alone
                self._say(f"nothing was looked at: {error}")
                return
            if trainer.is_global_zero:
                _log(trainer, findings, geometry=geometry)

    def _look(self, trainer: Trainer, pl_module: Any) -> tuple[list[Any], dict[str, float]]:
        """The cheap findings of today's weights and their geometry, on the first process."""
        from headless.analysis.laboratory import analyze, select
        from headless.analysis.session import Session

        backbone, sharded = pl_module.backbone, is_sharded(pl_module)
        whole = _whole_weights(backbone, trainer.is_global_zero) if sharded else {}
        shown = _copy(backbone, whole) if whole else None
        # In float32, as `headless analyze` does, unless the attention needs less.
        flash = "flash" in str(getattr(backbone.config, "_attn_implementation", ""))
        context = trainer.precision_plugin.forward_context() if flash else torch.no_grad()
        with evaluating(pl_module), context:
            head = pl_module.objective.lm_head(pl_module.embedding_VD, pl_module.unigram_counts)
            weight_VD = head.weight_VD.detach()
            # What the cheap analyses look at: a backbone, and the head that scores its states.
            if shown is not None:
                weight_VD = weight_VD.cpu()
            bias_V = None if head.bias_V is None else head.bias_V.detach().to(weight_VD.device)
            head = head._replace(weight_VD=weight_VD, bias_V=bias_V)
            rows = SimpleNamespace(weight=weight_VD, lm_head=head)
            model = SimpleNamespace(base_model=backbone, get_output_embeddings=lambda: rows)
            subject = replace(self._subject, model=model, shown=shown)
            session = Session(subject, self.seed, preset="cheap", spread=not sharded)
            if subject.sequences_NT is not None:
                _ = session.statistics  # every process takes part where the model runs
            if not trainer.is_global_zero:
                return [], {}
            findings, left_out = analyze(session, select(preset="cheap"))
        for name, reason in left_out.items():
            if subject.sequences_NT is not None:
                self._say(f"{name} is left out: {reason}")
        return findings, _geometry(session, findings)

    def _whole(self, trainer: Trainer, run: RunDirectory) -> None:
        from headless.analysis.analyze import analyze
        from headless.analysis.report import FIGURES

        if not run.last_checkpoint.is_file():
            raise HeadlessError("the run wrote no checkpoint that one process can read")
        self._say(f"looking inside the trained model, into {run.analysis} …")
        inside = analyze(
            run.path,
            run.analysis,
            tokens=self.tokens,
            seed=self.seed,
            device=str(trainer.strategy.root_device),  # the model is on the CPU again
            overwrite=True,
        )
        _log(trainer, inside.findings, run.analysis / FIGURES)

    def _say(self, words: str) -> None:
        """A line on the terminal, once."""
        if words not in self._said:
            self._said.add(words)
            print(f"headless: {words}", file=sys.stderr)  # noqa: T201 - the user is to see it


def _first_weights(trainer: Trainer, backbone: Any) -> nn.Module | None:
    """The backbone before the first step, on the CPU of the first process, where it is known."""
    if num_parameters(backbone) > FIRST_WEIGHTS:
        return None
    weights: dict[str, Tensor] = {}
    if trainer.global_step == 0:
        weights = _whole_weights(backbone, trainer.is_global_zero)
    elif trainer.is_global_zero:
        file = RunDirectory(Path(trainer.default_root_dir)).first_weights
        kept = load_file(file) if file.is_file() else {}
        of_backbone = {k: v for k, v in kept.items() if k.startswith("backbone.")}
        weights = {name.removeprefix("backbone."): value for name, value in of_backbone.items()}
    return _copy(backbone, weights) if weights else None


def _whole_weights(backbone: nn.Module, wanted: bool) -> dict[str, Tensor]:
    """On the CPU of processes that want them; shards are gathered: every process must call."""
    weights: dict[str, Tensor] = {}
    for name, value in backbone.state_dict().items():
        value = value.full_tensor() if hasattr(value, "full_tensor") else value
        if wanted:
            weights[name] = value.detach().to("cpu", copy=True)
    return weights


def _copy(backbone: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    """A backbone with these weights, to look at."""
    if is_custom(backbone):  # only its own class knows how it is made
        copy = deepcopy(backbone).cpu()
        copy.load_state_dict(weights, strict=False)
        return copy.eval()
    with torch.device("meta"):
        copy = AutoModel.from_config(backbone.config)
    copy.load_state_dict(weights, strict=False, assign=True)
    return copy.eval()


def _scalars(findings: Sequence[Any]) -> dict[str, float]:
    return {name: float(v) for one in findings for name, v in one.scalars.items()}


def _geometry(session: Any, findings: Sequence[Any]) -> dict[str, float]:
    """The mean cosine, effective rank and exponent by layer, as Transformers counts hidden states.

    RankMe and α-ReQ are the last two, of the states less their mean.
    """
    from headless.analysis.shape.spread import exponent_of_noise
    from headless.analysis.states.accumulators import REST
    from headless.analysis.states.moments import eigenvalues

    scalars = _scalars(findings)
    nan = float("nan")  # is not logged
    rank = scalars.get("table_spectra/embedding/effective_rank_centred", nan)
    numbers = {"effective_rank/embedding": rank}
    if session.subject.sequences_NT is None:
        return numbers
    numbers["anisotropy/embedding"] = scalars.get("anisotropy/embedding", nan)
    *points, last = session.statistics.items()
    if last[0].component == "norm_f":  # what it reads is no layer of its own
        points.pop()
    for layer, (point, s) in enumerate([*points, last]):
        spectrum_D = torch.from_numpy(eigenvalues(s)).sqrt()
        numbers[f"anisotropy/layer_{layer:02d}"] = scalars.get(f"anisotropy/{point.name}", nan)
        numbers[f"effective_rank/layer_{layer:02d}"] = ranks_of(spectrum_D).effective
        exponent = scalars.get(f"covariance_spectra/{point.name}/exponent", nan)
        numbers[f"alpha_req/layer_{layer:02d}"] = exponent
    states, width = int(s.count_G[REST]), len(spectrum_D)
    numbers["states"] = float(states)
    numbers["effective_rank/null"] = effective_rank_of_noise(states, width)
    numbers["alpha_req/null"] = exponent_of_noise(states, width)
    return numbers


def _log(
    trainer: Trainer,
    findings: Sequence[Any],
    figures: Path | None = None,
    geometry: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Numbers to all loggers; pictures and histograms to those that take them."""
    numbers = {f"geometry/{name}": value for name, value in geometry.items()}
    numbers |= {f"analysis/{name}": value for name, value in _scalars(findings).items()}
    log_point(trainer, {name: value for name, value in numbers.items() if isfinite(value)})
    drawn = {one.name: "png" for f in findings for one in f.pictures}
    drawn |= {one.name: "gif" for f in findings for one in f.animations}
    images = {
        f"analysis/figures/{name}": path
        for name, suffix in drawn.items()
        if figures and (path := figures / f"{name}.{suffix}").is_file()
    }
    histograms = {
        f"analysis/histograms/{finding.name}/{place}": pair
        for finding in findings
        for place, pair in finding.histograms.items()
    }
    for logger in trainer.loggers:
        if hasattr(logger, "log_analysis"):
            logger.log_analysis(images, histograms)
