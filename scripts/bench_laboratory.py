"""What it costs to look inside a model while it is trained, and what each analysis takes.

    python scripts/bench_laboratory.py [--steps 80] [--repeats 3] [--output benchmarks/laboratory.json]

Two runs of the demo's model on the same batches train in turn, several times in one process: one
without the laboratory, one with its cheap preset (a look before the first step and eight more, at
even steps). A look is made outside training time, so that seconds of training are to be the same;
what it costs is added to the wall clock. `look_in_steps` is its time over that of a training step:
at a look every 50 steps it costs a fiftieth of it. `cost_in_demo` is the time of all looks of the
demo, before the first step and at each validation of configs/demo/base.yaml, over its seconds of
training. Then each analysis of both presets is timed on the model that came out.
"""  # noqa: E501 - a command is one line

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from bench_loop import make_config, make_data
from benchmarking import write

from headless.analysis.laboratory import analyze, select
from headless.analysis.session import Preset, Session
from headless.analysis.subject import open_subject
from headless.callbacks.laboratory import LaboratoryMonitor
from headless.callbacks.progress import progress_of
from headless.training.assembly import arguments_of, build
from headless.training.pretrain import fit

LOOKS = 8  # after the first one
DEMO = Path(__file__).parents[1] / "configs" / "demo" / "base.yaml"


def train(root: Path, data: Path, steps: int, enabled: bool) -> tuple[float, list[float], Path]:
    """Seconds of training, seconds of each look, and the run."""
    settings = {
        "data.batch_size": 32,
        "model.compile": False,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.val_check_interval": steps // LOOKS,
        "trainer.check_val_every_n_epoch": None,
        "trainer.limit_val_batches": 1,
        "laboratory.enabled": enabled,
    }
    cli = build(arguments_of(make_config(root, data, steps), settings))
    looks: list[float] = []
    monitor = next(c for c in cli.trainer.callbacks if isinstance(c, LaboratoryMonitor))
    report = monitor._report

    def timed(*arguments: Any) -> None:
        begin = time.perf_counter()
        report(*arguments)
        looks.append(time.perf_counter() - begin)

    monitor._report = timed  # type: ignore[method-assign]
    path = fit(cli)
    return progress_of(cli.trainer).seconds, looks, path


def each_analysis(run: Path, preset: Preset, tokens: int) -> dict[str, float]:
    """Seconds of the states, of each analysis and of all of them; pictures are not drawn."""
    subject = open_subject(str(run), None, tokens, None, "validation", "cpu", False)
    session = Session(subject, preset=preset)
    begin = time.perf_counter()
    _ = session.statistics
    seconds = {"states": time.perf_counter() - begin}
    for name in select(preset=preset):
        begin = time.perf_counter()
        analyze(session, [name])
        seconds[name] = time.perf_counter() - begin
    return seconds | {"all": sum(seconds.values())}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=65_536, help="of the full preset")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/laboratory.json"))
    options = parser.parse_args()
    if options.steps < LOOKS:
        parser.error(f"--steps must be at least {LOOKS}")
    training: dict[str, list[float]] = {"without": [], "with": []}
    looks: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = make_data(root)
        for repeat in range(options.repeats + 1):
            # Each stands as often before the other as behind it, and the first round warms up.
            for name in list(training)[:: 1 if repeat % 2 else -1]:
                seconds, took, run = train(root, data, options.steps, name == "with")
                print(f"{name}: {seconds / options.steps * 1e3:.0f} ms a step", file=sys.stderr)
                if repeat:
                    training[name].append(seconds / options.steps)
                    looks += took
        each_analysis(run, "cheap", 1024)  # warms up
        analyses = {
            "cheap": each_analysis(run, "cheap", 8 * 128),
            "full": each_analysis(run, "full", options.tokens),
        }
    step = {name: statistics.median(values) for name, values in training.items()}
    look = statistics.median(looks)
    look_in_steps = look / step["without"]
    demo = yaml.safe_load(DEMO.read_text())["trainer"]
    demo_looks = 1 + demo["max_steps"] // demo["val_check_interval"]
    cost_in_demo = demo_looks * look_in_steps / demo["max_steps"]
    result = {
        "steps": options.steps,
        "repeats": options.repeats,
        "looks": LOOKS + 1,
        "seconds_per_step": training,
        "seconds_per_look": looks,
        "ratio_training": step["with"] / step["without"],
        "look_in_steps": look_in_steps,
        "cost_in_demo": cost_in_demo,
        "seconds": analyses,
        "tokens": {"cheap": 8 * 128, "full": options.tokens},
    }
    write(options.output, result)
    print(f"seconds of training, with the laboratory / without: {result['ratio_training']:.3f}")
    print(f"a look: {look * 1e3:.0f} ms, {look_in_steps:.2f} of a training step")
    print(f"the demo's {demo_looks} looks / its seconds of training: {cost_in_demo:.1%}")
    print(f"all of the full preset: {analyses['full']['all']:.0f} s of {options.tokens:,} tokens")


if __name__ == "__main__":
    main()
