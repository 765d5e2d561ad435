"""The names that are checked before torch is imported are those of the live parser."""

import subprocess
import sys
from pathlib import Path

import pytest

from headless.cli.completion import run_parser
from headless.errors import HeadlessError
from headless.training.options import LINKED, OPEN, check_options, options


def live() -> tuple[set[str], set[str], set[str]]:
    """Leaves, those with keys of their own, and those that another's value decides."""
    parser = run_parser("pretrain")
    kinds = {action.dest: type(action).__name__ for action in parser._actions}
    groups = {key for key, kind in kinds.items() if kind == "_ActionConfigLoad"}
    linked = {key for key, kind in kinds.items() if kind == "ActionLink"}
    helped = {key.removesuffix(".help") for key in kinds if key.endswith(".help")}
    mappings = {a.dest for a in parser._actions if "dict[" in str(getattr(a, "_typehint", ""))}
    other = {"help", "config", "parts", "print_config", "print_completion", "print_shtab"}
    leaves = {key for key in kinds if not key.endswith(".help")} - groups - linked - other
    return leaves, helped | mappings, linked


def test_the_lists_are_the_parsers() -> None:
    leaves, nested, linked = live()
    assert options() == leaves
    assert set(OPEN) == nested
    assert set(LINKED) == linked


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*/*less.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_pass(path: Path) -> None:
    check_options(["--config", str(path), f"--config={path}", "--run.tags+", "x"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainr.max_steps", "3"], "--trainr.max_steps; did you mean 'trainer.max_steps'?"),
        (["--model.optimizer.lrr=3"], "did you mean 'model.optimizer.lr'?"),
        (["--seed", "3"], "--seed"),
        (["--config", "nowhere.yaml"], "no config file nowhere.yaml"),
        (["--model.vocab_size", "3"], "model.vocab_size would be overruled: it is the data's"),
        (["--data.seed=3"], "set seed_everything"),
    ],
)
def test_a_wrong_one_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(HeadlessError) as found:
        check_options(arguments)
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {optimizer: {lrr: 1}}", "key 'model.optimizer.lrr' is not expected; did you mean"),
        ("modle: {a: 1}", "did you mean 'model'?"),
        ("model.optimizer.lrr: 1", "'model.optimizer.lr'?"),
        ("model: {sequence_length: 9}", "model.sequence_length would be overruled: set data.seq"),
        ("trainer: {max_steps: 1}\ntrainer: {max_steps: 2}", "the key 'trainer' is given twice"),
        ("[1, 2]", "holds a list instead of keys"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(HeadlessError) as found:
        check_options(["--config", str(path)])
    assert message in str(found.value)
    assert str(path) in str(found.value)


@pytest.mark.parametrize(
    "text",
    [
        "model: {objective: {class_path: X, init_args: {anything: 1}}, backbone: {extra: {a: 1}}}",
        "trainer: {callbacks: [{class_path: X}], max_time: {days: 1}, strategy: {class_path: Y}}",
        "model.objective.temperature: 1\nrun: {}",
        "",
    ],
)
def test_what_only_the_live_parser_knows_passes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    check_options(["--config", str(path), "--model.objective.temperature", "1"])


@pytest.mark.parametrize(
    "arguments", [["pretrain", "--trainr.max_steps", "3"], ["evaluate", "--modle", "x"]]
)
def test_a_wrong_option_is_answered_without_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; from headless.cli.main import main; code = main({arguments}); "
        "print(code, sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "2 []\n"
    assert "did you mean" in result.stderr
