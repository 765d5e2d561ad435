"""Headless: pre-train language models with and without a softmax head, and compare them fairly."""

__version__ = "0.1.0"
