"""`python -m rgflow` is the command `rgflow`."""

import sys

from rgflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
