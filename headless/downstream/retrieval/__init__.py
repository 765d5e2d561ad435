"""Nearest tokens and contexts, kNN-LM, decoding by search: faiss indexes of vectors of a model."""
