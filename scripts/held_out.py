"""Names the test images of the faces: python scripts/held_out.py celeba_aligned_32.npz faces-test.txt

The rows of the file whose person (`identity200`) is among the 20 who are held out, one number a line, as the option
--test-index of rgflow train reads them; benchmarks/faces.py splits the file in the same way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FIRST = 180  # of the people who are held out, as in benchmarks/faces.py


def main() -> int:
    """Reads the file and writes the list."""
    source, target = map(Path, sys.argv[1:])
    with np.load(source) as file:
        rows = np.flatnonzero(file["identity200"] >= FIRST)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(target, rows, fmt="%d")
    print(f"{len(rows)} test images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
