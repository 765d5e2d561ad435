"""The options of `headless pretrain` by name: a wrong one is answered before torch is imported."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.structured import read_yaml
from headless.training.parsing import suggest
from headless.training.signatures import names_of

# Where the settings of each group are written down.
GROUPS = {
    "run": ("headless.training.settings", "RunConfig"),
    "data": ("headless.data.datamodule", "TokenDataModule"),
    "model": ("headless.training.module", "PretrainingModule"),
    "model.backbone": ("headless.models.backbone", "BackboneConfig"),
    "model.optimizer": ("headless.training.optim", "AdamWConfig"),
    "model.schedule": ("headless.training.optim", "ScheduleConfig"),
    "trainer": ("lightning.pytorch.trainer.trainer", "Trainer"),
    "checkpoint": ("headless.callbacks.checkpoint", "RunCheckpoint"),
    "throughput": ("headless.callbacks.throughput", "ThroughputMonitor"),
    "memory": ("headless.callbacks.memory", "MemoryMonitor"),
    "geometry": ("headless.callbacks.geometry", "GeometryMonitor"),
    "laboratory": ("headless.callbacks.laboratory", "LaboratoryMonitor"),
    "samples": ("headless.callbacks.samples", "SampleWriter"),
}
# Their values are classes or mappings with keys of their own: the live parser knows those.
OPEN = (
    *("model.objective", "model.backbone.extra", "trainer.accelerator", "trainer.callbacks"),
    *("trainer.logger", "trainer.max_time", "trainer.plugins", "trainer.profiler"),
    *("trainer.strategy", "trainer.val_check_interval"),
)
LINKED = {
    "model.vocab_size": "it is the data's",
    "model.eos_token_id": "it is the data's",
    "model.sequence_length": "set data.sequence_length",
    "model.task": "set data.task",
    "data.seed": "set seed_everything",
}
OTHER = ("config", "help", "parts", "print_config", "print_completion", "seed_everything")


@cache
def options() -> frozenset[str]:
    """Every option by its dotted name, groups left out."""
    names = {f"{group}.{name}" for group, place in GROUPS.items() for name in names_of(*place)}
    return frozenset(names - set(GROUPS) - set(LINKED) | {"seed_everything"})


def with_parts(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, before each config the parts that it names.

    `parts: [../backbone/pythia-70m.yaml]` are config files, beside the one that names them, or in
    the working directory; what comes later wins.
    """
    words, waiting = [], iter(arguments)
    for word in waiting:
        option, equals, value = word.partition("=")
        if option == "--config":
            value = value if equals else next(waiting, "")
            words += [f"--config={part}" for part in _parts(value, ())]
            word = f"--config={value}"
        words.append(word)
    return words


def _parts(place: str, above: tuple[Path, ...]) -> list[str]:
    path = Path(place)
    if _is_inline(place) or not path.is_file():
        return []
    if path.resolve() in above:
        raise HeadlessError(f"{place} is a part of itself: leave it out of parts")
    names = read_yaml(path).get("parts") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise HeadlessError(f"{place}: parts must be a list of config files, got {names!r}")
    paths: list[str] = []
    for name in names:
        beside = path.parent / name
        part = str(beside if beside.is_file() or not Path(name).is_file() else Path(name))
        if not Path(part).is_file():
            raise HeadlessError(f"{place}: there is no part {part}")
        paths += [*_parts(part, (*above, path.resolve())), part]
    return paths


def _is_inline(place: str) -> bool:
    """None, one on the network, or the text of a config."""
    return not place or "://" in place or any(sign in place for sign in "{:\n")


def check_options(arguments: Sequence[str], also: Sequence[str] = ()) -> None:
    """Refuse the first option, key of a config file, or config file that does not exist.

    `also` are further options of the command.
    """
    waiting = iter(with_parts(arguments))
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            continue
        name = option[2:].removesuffix("+")
        if name == "config":
            _check_file(value if equals else next(waiting, ""))
        elif name in also:
            continue
        elif name in LINKED:
            raise _decided(option, name)
        elif not _is_known(name):
            names = [*also, *sorted(options()), *OTHER]
            raise HeadlessError(suggest(f"unrecognized arguments: {option}", names))


def _check_file(place: str) -> None:
    if _is_inline(place):
        return
    path = Path(place)
    if not path.is_file():
        raise HeadlessError(f"there is no config file {place}")
    for name in _keys(read_yaml(path)):
        if name in LINKED:
            raise _decided(f"{place}: {name}", name)
        if not _is_known(name):
            raise HeadlessError(
                suggest(f"{place}: key '{name}' is not expected", [*sorted(options()), *GROUPS])
            )


def _keys(values: dict[Any, Any], above: str = "") -> Iterator[str]:
    """The dotted keys of a config, down to where the live parser knows better."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value and name in GROUPS and name not in OPEN:
            yield from _keys(value, name)
        else:
            yield name


def _is_known(name: str) -> bool:
    is_open = any(name == key or name.startswith(f"{key}.") for key in OPEN)
    return is_open or name in options() or name in GROUPS or name in OTHER


def _decided(place: str, name: str) -> HeadlessError:
    return HeadlessError(f"{place} would be overruled: {LINKED[name]}, so leave it out")
