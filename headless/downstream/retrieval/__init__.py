"""Nearest tokens and contexts, decoding by search: faiss indexes of vectors of a model."""
