"""`headless finetune --task lm-head`: a softmax head for a pre-trained model."""

from headless.cli.parsing import parser_of
from headless.isolation import isolated
from headless.progress import Display
from headless.runs.run import Run
from headless.training.assembly import arguments_of, build
from headless.training.pretrain import fit
from headless.training.tune_head import TASK, tuning_config


@isolated()
def main(arguments: list[str]) -> None:
    """The command: its own options, and any of `headless pretrain`."""
    parser = parser_of(f"finetune --task {TASK}", tuning_config, config=False)
    parser.add_argument("--task", type=str)
    task_options: list[str] = []
    settings: list[str] = []
    words = task_options
    for word in arguments:
        if word.startswith("-"):
            is_known = word.partition("=")[0] in parser._option_string_actions
            words = task_options if is_known else settings
        words.append(word)
    options = parser.parse_args(task_options)
    options.pop("task")
    with Display() as display:
        cli = build([*arguments_of(tuning_config(**options)), *settings], display)
        path = fit(cli, validate_first=True)
    if "val/nll" in (last := Run(path).summary.get("last") or {}):
        print(f"val/nll {last['val/nll']:.4f}")
    print(f"run directory: {path}")
