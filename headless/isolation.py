"""A library call leaves its caller's process as it found it; the cores that it may use."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


def usable_cores() -> int:
    """Those that the process may run on, and its container's quota covers: SLURM gives it a few."""
    from joblib import cpu_count

    return int(cpu_count())


@contextmanager
def isolated() -> Iterator[None]:
    """Put back warning filters, log levels, environment variables and random states at the end.

    Also a decorator: `@isolated()`.
    """
    environment = dict(os.environ)
    python_state = random.getstate()
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    levels = [(log, log.level) for log in loggers if isinstance(log, logging.Logger)]
    with warnings.catch_warnings(), ExitStack() as stack:
        if numpy := sys.modules.get("numpy"):
            stack.callback(numpy.random.set_state, numpy.random.get_state())
        if torch := sys.modules.get("torch"):
            started = torch.cuda.is_available() and torch.cuda.is_initialized()
            devices: Any = range(torch.cuda.device_count()) if started else ()
            stack.enter_context(torch.random.fork_rng(devices))
        try:
            yield
        finally:
            random.setstate(python_state)
            for log, level in levels:
                log.setLevel(level)
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)
