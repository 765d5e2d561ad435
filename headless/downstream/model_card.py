"""The card of an exported model: what it is, how its head was made, how it is loaded."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Template


def model_card(facts: dict[str, Any]) -> str:
    """A model card in the hub's format."""
    front = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation" if facts["task"] == "causal" else "fill-mask",
        tags=["headless", facts["objective"].split(" ")[0]],
    )
    text = Path(__file__).with_name("model_card.jinja").read_text(encoding="utf-8")
    return Template(text).render(facts=facts, front=front.to_yaml())
