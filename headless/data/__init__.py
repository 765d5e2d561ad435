"""Text to tokens to batches. `stream` owns the format on disk."""
