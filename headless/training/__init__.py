"""Pre-training: one LightningModule for every objective and every backbone."""
