"""The verb: continue prompts, or fill in the masks of a masked model's."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from transformers import TextStreamer

from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import Head, check_output_file, write_output
from headless.downstream.retrieval.decoder import index_as_head
from headless.files import json_lines
from headless.isolation import isolated
from headless.models.sampling import check_sampling


@isolated()
def generate(
    model: str | Path | LanguageModel,
    prompt: str | list[str] = "",
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int = 0,
    head: Head = "auto",
    decoder: Literal["model", "faiss"] = "model",
    index: Literal["exact", "ivf", "hnsw"] = "exact",
    device: str = "auto",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    *,
    stream: bool = False,
) -> list[dict[str, Any]]:
    """Continue prompts with a run, a checkpoint, a Hugging Face directory or a hub name.

    A masked model fills in the masks of its prompts instead.

    Args:
        model: what continues them.
        prompt: a text, or several as ["a", "b"]; the empty one begins a document. The name of a
            special token is text, but in a masked model's prompt the token.
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
        stream: print each prompt and what follows as it comes.

    Returns:
        For each prompt "model", "head", "prompt" and "text"; of a masked model "masks": for each
        mask the likeliest tokens with their probabilities.
    """
    check_output_file(output, overwrite)
    check_sampling(max_new_tokens, temperature, top_k, top_p, seed)
    lm = load(model, head=head, device=device, trust_remote_code=trust_remote_code, needs_head=True)
    lm.check_tokenizer()
    options: Any = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    causal = lm.task == "causal"
    if stream and causal:
        skip = {"skip_prompt": True, "skip_special_tokens": True}
        options["streamer"] = TextStreamer(lm.tokenizer, **skip)
    searched = decoder == "faiss" and causal
    records: list[dict[str, Any]] = []
    with index_as_head(lm, index, top_k or 64) if searched else nullcontext():
        for text in [prompt] if isinstance(prompt, str) else prompt:
            shown = ["\n"] if records else []
            record: dict[str, Any] = {"model": lm.name, "head": lm.head, "prompt": text}
            if not causal:
                record["masks"] = lm.fill_masks(text)
                shown += ["\n  ".join([text, *map(_line, record["masks"])]), "\n"]
            else:
                shown.append(text)
            if stream:
                sys.stdout.writelines(shown)
                sys.stdout.flush()
            if causal:
                record["text"] = lm.generate(text, max_new_tokens, **options)
            records.append(record)
    write_output(output, json_lines(records))
    return records


def _line(guesses: list[tuple[str, float]]) -> str:
    return ", ".join(f"{token!r} {share:.2f}" for token, share in guesses)
