"""`headless finetune --task lm-head`: a softmax head for a pre-trained model."""

from headless.isolation import isolated
from headless.progress import Display
from headless.runs.run import Run
from headless.training.assembly import arguments_of, build
from headless.training.parsing import CommandParser, read_words
from headless.training.pretrain import fit
from headless.training.tune_head import TASK, tuning_config


@isolated()
def main(arguments: list[str]) -> None:
    """The command: its own options, and any of `headless pretrain`."""
    parser = CommandParser(prog=f"headless finetune --task {TASK}")
    parser.add_argument("--task", type=str)
    parser.add_function_arguments(tuning_config, as_group=False)
    own: list[str] = []
    settings: list[str] = []
    for option, _, words in read_words(arguments):
        is_own = option in parser._option_string_actions or not option
        (own if is_own else settings).extend(words)
    options = parser.parse_args(own)
    options.pop("task")
    with Display() as display:
        cli = build([*arguments_of(tuning_config(**options)), *settings], display)
        path = fit(cli, validate_first=True)
    if "val/nll" in (last := Run(path).summary.get("last") or {}):
        print(f"val/nll {last['val/nll']:.4f}")
    print(f"run directory: {path}")
