"""`headless generate`: continue prompts, streaming to the terminal."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

from headless.cli.parsing import run
from headless.errors import HeadlessError


def generate(
    model: str,
    prompt: str | list[str] = "",
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int = 0,
    head: Literal["auto", "calibrated", "tied", "trained"] = "auto",
    decoder: Literal["model", "faiss"] = "model",
    index: Literal["exact", "ivf", "hnsw", "ivfpq"] = "exact",
    device: str = "auto",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Continue prompts with a run, a checkpoint, a Hugging Face directory or a hub name.

    A masked model fills in the masks of its prompts instead.

    Args:
        model: what continues them.
        prompt: a text, or several as ["a", "b"]; the empty one begins a document. The name of a
            special token in it is text, as in the training text, but in a masked model's prompt
            the token.
        max_new_tokens: at most so many; fewer where the model has no more positions.
        temperature: 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens only.
        top_p: draw among the likeliest tokens that hold this share of the probability.
        seed: of the random numbers; every prompt begins with the same ones.
        head: of a run: "calibrated", "trained" or "tied"; see headless export.
        decoder: "faiss" finds the likeliest tokens by maximum-inner-product search instead of
            scoring the whole vocabulary, and draws among top_k of them.
        index: of the faiss decoder: exact, or approximate.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        output: also write one JSON line a prompt to this file.
        overwrite: replace an existing output.

    Raises:
        HeadlessError: no such model, a value out of its range, an output that exists.
    """
    from headless.downstream.language_model import Sampling
    from headless.downstream.loading import load

    if output is not None and output.exists() and not overwrite:
        raise HeadlessError(f"{output} exists: replace it with --overwrite true, or name another")
    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, seed)
    lm = load(
        model,
        head=head,
        device=device,
        trust_remote_code=trust_remote_code,
        needs_head=True,
    )
    prompts = [prompt] if isinstance(prompt, str) else prompt
    write = _filler(lm) if lm.task == "masked" else _continuer(lm, sampling, decoder, index)
    records = []
    for place, text in enumerate(prompts):
        if place:
            print()
        records.append({"model": lm.name, "head": lm.head, "prompt": text, **write(text)})
    if output is not None:
        from headless.files import write_text

        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def _continuer(lm: Any, sampling: Any, decoder: str, index: Any) -> Any:
    from transformers import TextStreamer

    if decoder == "faiss":
        from headless.downstream.retrieval.decoder import FaissHead, check_linear

        check_linear(lm)
        head = FaissHead(lm.model.get_output_embeddings(), index, sampling.top_k or 64)
        lm.model.set_output_embeddings(head)

    def write(prompt: str) -> dict[str, Any]:
        streamer = TextStreamer(lm.tokenizer, skip_prompt=True, skip_special_tokens=True)
        print(prompt, end="", flush=True)
        return {"text": lm.generate(prompt, sampling, streamer=streamer)}

    return write


def _filler(lm: Any) -> Any:
    def write(prompt: str) -> dict[str, Any]:
        masks = lm.fill_masks(prompt)
        print(prompt)
        for guesses in masks:
            print("  " + ", ".join(f"{token!r} {share:.2f}" for token, share in guesses))
        sys.stdout.flush()
        return {"masks": masks}

    return write


def main(arguments: list[str]) -> None:
    """The command."""
    run(generate, arguments, "generate")
