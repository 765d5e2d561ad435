"""What each arm's config comes to: checked, counted, its steps timed in turn with the others'."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import cycle, islice

import torch
from torch import nn

from headless.errors import HeadlessError
from headless.files import exclusive, write_json
from headless.objectives.switched import Switched
from headless.progress import Display
from headless.structured import flatten
from headless.sweeps.config import ARMS, BEGIN_FROM, Settings, SweepConfig
from headless.sweeps.plan import Arm, known_arms
from headless.training.assembly import RunCLI, arguments_of, build
from headless.training.devices import keep_freed_memory

BACKBONE = "model.backbone"
ROUNDS, WARM_UP, BATCHES = 20, 3, 8  # steps timed twice, steps before them, batches
WAIT_SECONDS = 3600.0  # for another machine that times the steps


def find_arms(
    config: SweepConfig,
    display: Display,
    accept: Callable[[dict[str, Arm]], object] = lambda arms: None,
) -> dict[str, Arm]:
    """All arms of a sweep; those that are new, or have other settings now, are built and timed.

    Args:
        accept: raises where the sweep cannot go on with them; they are not kept then.

    Raises:
        HeadlessError: one makes no run.
    """
    with exclusive(config.directory / ARMS, patience=WAIT_SECONDS):
        known, arms = known_arms(config), {}
        for number, (name, settings) in enumerate(config.settings.items()):
            display.report("arms", number, len(config.settings), name)
            same = name in known and known[name].settings == settings
            arms[name] = known[name] if same else _describe(config, name, settings)
        untimed = [name for name, arm in arms.items() if arm.seconds_per_step is None]
        if untimed and "equal_seconds" in config.budgets:
            arms |= _timed(config, arms, untimed, display)
        accept(arms)
        kept = {name: asdict(arm) for name, arm in (known | arms).items()}
        write_json(config.directory / ARMS, kept)
    return arms


def _build(config: SweepConfig, name: str, settings: Settings) -> RunCLI:
    spaces = config.tune.parameters_of(name).items()
    first = {key: space.get("grid", [space.get("low")])[0] for key, space in spaces}
    place = {"run.name": name, "run.root": str(config.directory), "run.wandb": "disabled"}
    own = dict(settings)
    if source := own.pop(BEGIN_FROM, None):  # whose runs are not there yet: its architecture is
        shape = {k: v for k, v in flatten(config.settings[source]) if k.startswith(BACKBONE)}
        own = {**shape, **own, "model.init_head": "random"}
    try:
        return build(arguments_of(config.base_file, {**own, **first, **place}))
    except HeadlessError as error:
        raise HeadlessError(f"arm {name}: {error}") from error


def _describe(config: SweepConfig, name: str, settings: Settings) -> Arm:
    cli = _build(config, name, settings)
    data, trainer = cli.datamodule, cli.trainer
    if trainer.max_steps < 1:
        raise HeadlessError(f"arm {name}: set trainer.max_steps, which a sweep counts in")
    if trainer.world_size > 1:  # whose other processes would take runs of their own
        raise HeadlessError(f"arm {name}: a worker trains on one device: set trainer.devices to 1")
    sequences = data.batch_size * trainer.accumulate_grad_batches
    return Arm(
        settings=settings,
        steps=trainer.max_steps,
        warmup_steps=cli.config.model.schedule.warmup_steps,
        tokens_per_step=sequences * data.sequence_length,
        parameters=sum(p.numel() for p in cli.model.parameters()),
    )


def _timed(
    config: SweepConfig, arms: dict[str, Arm], untimed: list[str], display: Display
) -> dict[str, Arm]:
    """The untimed arms with their seconds, in units of one that was timed before, if any: an arm
    that is added later changes nothing for the others."""
    before = [name for name, arm in arms.items() if arm.seconds_per_step][:1]
    torch.set_num_threads(config.threads_of_worker)
    runs = {name: _build(config, name, arms[name].settings) for name in (*untimed, *before)}
    seconds = time_steps(runs, display)
    scale = (arms[before[0]].seconds_per_step or 1.0) / seconds[before[0]] if before else 1.0
    return {n: replace(arms[n], seconds_per_step=scale * seconds[n]) for n in untimed}


def time_steps(runs: dict[str, RunCLI], display: Display) -> dict[str, float]:
    """Mean seconds of an optimizer step over each run, which may switch its objective.

    Runs take turns, so that what disturbs one disturbs all; the median counts.
    """
    steps = {name: _stepper(cli) for name, cli in runs.items()}
    seconds = dict.fromkeys(steps, 0.0)
    for has_switched in (False, True):
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(WARM_UP + ROUNDS):
            display.report("timing steps", turn + has_switched * ROUNDS, WARM_UP + 2 * ROUNDS)
            for name, step in steps.items():
                begin = time.perf_counter()
                step()
                taken[name].append(time.perf_counter() - begin)
        for name, cli in runs.items():
            objective = cli.model.objective
            before = objective.at if isinstance(objective, Switched) else 0.5
            share = 1 - before if has_switched else before
            seconds[name] += share * statistics.median(taken[name][WARM_UP:])
            if isinstance(objective, Switched):
                objective.switch(cli.model.unigram_counts)
    return seconds


def _stepper(cli: RunCLI) -> Callable[[], None]:
    """An optimizer step of a run (micro-batches, clipping, optimizer, schedule), without the
    trainer's loop."""
    module, data, trainer = cli.model, cli.datamodule, cli.trainer
    module.trainer = data.trainer = trainer
    module.unigram_counts[: len(data.unigram_counts)] = data.unigram_counts
    module.objective.set_unigram(module.unigram_counts)
    device = trainer.strategy.root_device
    keep_freed_memory(device)  # as a run does
    module.to(device).train()
    module.on_fit_start()  # compiles where the run would
    (optimizer,), (schedule,) = module.configure_optimizers()
    trainer.strategy.connect(module)  # for which the batches are made
    batches = cycle(list(islice(data.train_dataloader(), BATCHES)))

    def step() -> None:
        for batch in islice(batches, trainer.accumulate_grad_batches):
            moved = {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
            with trainer.precision_plugin.forward_context():
                loss = module.training_step(moved, 0)
            loss.backward()
        trained = module.close_rows()
        if trainer.gradient_clip_val:
            nn.utils.clip_grad_norm_(trained, trainer.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            module.objective.after_step(module.embedding_VD)
        schedule["scheduler"].step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
