"""Observers: each watches a run on its own cadence and changes nothing in it."""
