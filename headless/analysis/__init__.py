"""The laboratory: what is inside a language model, with numbers and null models."""
