"""Language models of a few thousand weights, made by hand: no training, no files."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer
from headless.downstream.language_model import LanguageModel


def gpt_neox(data: Path, *, bias: bool = True, seed: int = 0, hidden_size: int = 16) -> Any:
    """A tiny GPT-NeoX on a dataset's vocabulary whose head may have a bias."""
    dataset = open_dataset(data)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "gpt_neox",
        vocab_size=dataset.manifest.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=32,
        initializer_range=0.5,  # so that positions differ, and the likeliest token is clear
        tie_word_embeddings=False,
        bos_token_id=dataset.manifest.eos_token_id,
        eos_token_id=dataset.manifest.eos_token_id,
        pad_token_id=dataset.manifest.eos_token_id,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    linear = model.get_output_embeddings()
    nn.init.normal_(linear.weight, std=0.5)
    if bias:
        linear.bias = nn.Parameter(torch.randn(config.vocab_size))
    return LanguageModel(
        model,
        load_tokenizer(str(dataset.tokenizer_path)),
        "causal",
        "tiny",
        "own",
        "tiny",
        None,
        dataset.unigram_counts,
    )
