"""`headless export`: a checkpoint to a Hugging Face directory."""

import headless
from headless.cli.parsing import options_from

FORMS = {
    "native": "the family's own class",
    "folded": "the family's own class, the head folded into its weights",
    "custom": "needs trust_remote_code=True (without it, the head's matrix alone)",
}


def main(arguments: list[str]) -> None:
    options = options_from("export", arguments)
    facts = headless.export(**options)
    print(f"{options['output']}: {facts['head']} head, {FORMS[facts['head_form']]}")
