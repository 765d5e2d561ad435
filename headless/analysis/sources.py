"""Names of the sources whose findings are asked of a model."""

PAPER = "Ning and Rangaraju 2025"
