"""The prose of a comparison's page: `texts.yaml`."""

from pathlib import Path

from headless.structured import read_yaml

TEXTS = read_yaml(Path(__file__).with_name("texts.yaml"))
