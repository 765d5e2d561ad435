"""The text that a model was trained on: its own spectrum, and what embeddings know of counts."""
