"""Prints how the numbers of a fresh run differ from the committed ones in results/.

Numbers measured in different profiles are not compared. Exit status 1 only with --strict and a difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rgflow import results


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fresh", type=Path, help="folder of the fresh run")
    parser.add_argument("--committed", type=Path, default=results.COMMITTED, help="default: results/")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a number differs")
    options = parser.parse_args(arguments)
    counts: dict[str, int] = {}
    for path in sorted(options.fresh.glob("[0-9][0-9]_*.json")):
        chapter = path.stem
        fresh = results.load(chapter, options.fresh)
        known = (options.committed / path.name).exists()
        committed = results.load(chapter, options.committed) if known else {}
        for row in results.compare(fresh, committed):
            counts[row.verdict] = counts.get(row.verdict, 0) + 1
            if row.verdict == "differs":
                print(f"{chapter} {row.name}: now {row.fresh}, committed {row.committed}")
    print("results: " + (", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())) or "none recorded"))
    return 1 if options.strict and counts.get("differs") else 0


if __name__ == "__main__":
    sys.exit(main())
