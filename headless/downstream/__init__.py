"""What others do with a checkpoint: export, generate, evaluate, fine-tune, look up neighbours."""
