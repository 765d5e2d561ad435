"""A list option that is given several times keeps every value."""

from pathlib import Path
from typing import Any

import pytest

from headless.training.parsing import CommandParser


def of(
    prompt: str | list[str] = "",
    words: list[str] | None = None,
    seeds: list[int] = [0],  # noqa: B006
    place: int | list[int] | None = None,
    paths: list[Path] | None = None,
    lr: float = 0.1,
) -> None:
    """Options of every kind that the commands have."""


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("--prompt|A|--prompt|B|--prompt|C", {"prompt": ["A", "B", "C"]}),
        ("--prompt|HAMLET: to be|--prompt|a: b", {"prompt": ["HAMLET: to be", "a: b"]}),
        ("--prompt=A|--prompt=12", {"prompt": ["A", "12"]}),
        ("--prompt|A", {"prompt": "A"}),
        ("--prompt|[a, b]|--prompt|c", {"prompt": ["a", "b", "c"]}),
        ("--words|a|--words|b, c", {"words": ["a", "b, c"]}),
        ("--words|a", {"words": ["a"]}),
        ("--words|[a, b]", {"words": ["a", "b"]}),
        ("--seeds|1|--seeds|2|--seeds|3", {"seeds": [1, 2, 3]}),
        ("--seeds|1", {"seeds": [1]}),
        ("--seeds|[4, 5]", {"seeds": [4, 5]}),
        ("--place|5|--place|7", {"place": [5, 7]}),
        ("--place|5", {"place": 5}),
        ("--paths|x|--paths|y z", {"paths": [Path("x"), Path("y z")]}),
        ("--words|null", {"words": None}),
        ("--lr|0.5|--words|a|--lr|0.2", {"lr": 0.2, "words": ["a"]}),
    ],
)
def test_every_value_is_kept(arguments: str, wanted: dict[str, Any]) -> None:
    parser = CommandParser(allow_abbrev=False)
    parser.add_function_arguments(of, as_group=False)
    found = parser.instantiate_classes(parser.parse_args(arguments.split("|"))).as_dict()
    assert {name: found[name] for name in wanted} == wanted
    assert found["lr"] == wanted.get("lr", 0.1)


def test_so_do_the_options_of_a_run(dataset: Path, tmp_path: Path) -> None:
    from headless.training.assembly import build

    sizes = [f"--model.backbone.{key}" for key in ("hidden_size", "num_hidden_layers")]
    cli = build(
        [
            *(
                "--run.name",
                "r",
                "--data.path",
                str(dataset),
                "--run.root",
                str(tmp_path),
                "--run.wandb",
                "disabled",
            ),
            *("--model.objective", "CrossEntropy", "--model.backbone.model_type", "gpt2"),
            *(sizes[0], "8", sizes[1], "1", "--model.backbone.num_attention_heads", "2"),
            *("--data.sequence_length", "16", "--trainer.max_steps", "1"),
            *("--samples.prompts", "HAMLET: to be", "--samples.prompts", "or not"),
            *("--run.tags", "a", "--run.tags", "b", "--trainer.accelerator", "cpu"),
        ]
    )
    assert cli.config.samples.prompts == ["HAMLET: to be", "or not"]
    assert cli.config.run.tags == ["a", "b"]
