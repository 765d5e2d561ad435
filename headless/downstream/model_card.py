"""The card of an exported model: what it is, how its head was made, how it is loaded."""

from typing import Any

from huggingface_hub import ModelCardData

WORDS = {
    "calibrated": "calibrated, without a training step: logits = scores of the headless objective "
    "+ the log of the unigram distribution of the training text (and what else its form needs)",
    "fitted": "calibrated without training, then a temperature and a scale of its bias fitted to "
    "held-out text",
    "tied": "the input embeddings alone: for a headless model these are scores and not calibrated "
    "logits",
    "trained": "trained with cross-entropy",
}


def model_card(facts: dict[str, Any]) -> str:
    """A model card in the hub's format."""
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation" if facts["task"] == "causal" else "fill-mask",
        tags=["headless", facts["objective"].split(" ")[0]],
    )
    auto = "AutoModelForCausalLM" if facts["task"] == "causal" else "AutoModelForMaskedLM"
    trust = ", trust_remote_code=True" if facts["head_form"] == "custom" else ""
    rows = [
        ("objective", facts["objective"]),
        ("LM head", WORDS[facts["head"]]),
        ("backbone", facts["backbone"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("training text", facts["data"]),
        ("training tokens", f"{facts['tokens']:,}" if facts.get("tokens") else "not known"),
        ("optimizer steps", f"{facts['step']:,}"),
        ("sequence length", str(facts["sequence_length"])),
        ("seed", str(facts["seed"])),
        *((name, f"{value:.4f}") for name, value in sorted(facts.get("metrics", {}).items())),
    ]
    lines = [
        "---",
        card.to_yaml(),
        "---",
        "",
        f"# {facts['run']}",
        "",
        "A research model, pre-trained from scratch with "
        f"[headless](https://arxiv.org/abs/2309.08351) {facts['headless']} and exported as it is: "
        "neither filtered nor aligned.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "```python",
        f"from transformers import {auto}, {facts['tokenizer_class']}",
        "",
        f'tokenizer = {facts["tokenizer_class"]}.from_pretrained("DIRECTORY")',
        f'model = {auto}.from_pretrained("DIRECTORY"{trust})',
        "```",
        "",
        *_about_the_head(facts),
        *_about_padding(facts),
        "",
    ]
    return "\n".join(lines)


def _about_padding(facts: dict[str, Any]) -> list[str]:
    if facts["task"] != "causal":
        return []
    return [
        "",
        "The tokenizer pads on the left, as `generate` needs it: pass the attention mask on "
        '(`model.generate(**tokenizer(prompts, return_tensors="pt", padding=True))`). Scores of a '
        'padded batch without `generate` need `tokenizer.padding_side = "right"`.',
    ]


def _about_the_head(facts: dict[str, Any]) -> list[str]:
    error = facts["largest_relative_logit_error"]
    exact = (
        "The logits are those of the training framework: the largest difference of "
        f"log-probabilities on a test sequence is {error:.1e} of the largest one "
        f"({facts['dtype']})."
    )
    causal = facts["task"] == "causal"
    if facts["head_form"] == "folded" and causal:
        return [
            "The head has a bias, which this architecture has no place for: it is folded into the "
            "output matrix and the bias of the last LayerNorm, so that no custom code is needed. "
            "`AutoModel` therefore gives last hidden states that are shifted by half of that "
            f"norm's weight, the same for every token. {exact}"
        ]
    if facts["head_form"] == "folded":
        return [
            "The head is a matrix and a bias. This architecture has a transform before them, whose "
            f"weights are such that it does nothing, so that no custom code is needed. {exact}",
            "",
            "The weights of that transform are so small that a step of training would destroy the "
            "head. Whoever trains it on keeps them as they are; all others learn as they should:",
            "",
            "```python",
            f"for name in {facts['keep']}:",
            "    model.get_submodule(name).requires_grad_(False)",
            "```",
        ]
    if facts["head_form"] == "custom":
        rest = "the matrix of the head without what completes it" if causal else "part of the head"
        return [
            "The whole head needs `modeling_headless.py` in this directory "
            "(`trust_remote_code=True`): this architecture's own class has no place for all of it. "
            f"Loaded without the file it has {rest}: scores that rank tokens less well and are no "
            f"calibrated logits. `AutoModel` loads without it. {exact}"
        ]
    return [exact]
