"""The command `rgflow`: which of its commands, and what becomes of errors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

import torch

from rgflow.commands import COMMANDS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 2 for bad input, 1 for a failed run (one line on stderr)."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {inspect.getdoc(command)}" for name, command in COMMANDS.items()]
        text = ["usage: rgflow COMMAND [flags]", "", *lines, "", "rgflow COMMAND --help shows the flags."]
        sys.stdout.write("\n".join(text) + "\n")
        return 0 if args else 2
    try:
        if args[0] not in COMMANDS:
            raise ValueError(f"unknown command {args[0]!r}; known are {', '.join(COMMANDS)}")
        COMMANDS[args[0]](args[1:])
    except (ValueError, OSError, FloatingPointError, torch.OutOfMemoryError) as error:
        return _complain(error)
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":  # Lightning's word for bad settings
            raise
        return _complain(error)
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        if type(stop).__name__ != "SIGTERMException":  # Lightning's, after the last checkpoint
            raise
        return 143
    return 0


def _complain(error: BaseException) -> int:
    sys.stderr.write(f"rgflow: {' '.join(str(error).split())}\n")
    return 2 if isinstance(error, (ValueError, OSError)) or "Misconfig" in type(error).__name__ else 1
