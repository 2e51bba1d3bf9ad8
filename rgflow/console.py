"""Where the command line writes: results to stdout, messages to stderr."""

from __future__ import annotations

import logging
import os
import sys


def say(text: str) -> None:
    """Writes lines to stdout."""
    sys.stdout.write(text + "\n")


def log_to_stderr(quiet: bool) -> None:
    """Sends what the package logs to stderr; errors alone if quiet, or if other processes speak."""
    logger = logging.getLogger("rgflow")
    logger.setLevel(logging.INFO if not quiet and is_first_process() else logging.ERROR)
    if not logger.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def is_first_process() -> bool:
    """Whether this is the process of several (torchrun, SLURM) that speaks for all."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
