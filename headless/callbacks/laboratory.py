"""The laboratory while a run is trained."""

from headless.analysis.monitor import LaboratoryMonitor

__all__ = ["LaboratoryMonitor"]
