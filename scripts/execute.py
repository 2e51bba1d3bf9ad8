"""Runs the notebooks with papermill into book/executed/, a few at a time, one thread each.

The profile comes from RGFLOW_PROFILE (quick, book or full). A notebook that fails leaves no output file behind,
and the exit status is then 1; the others still run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "executed"


def environment() -> dict[str, str]:
    """The environment of one notebook: one thread, a profile, and the kernel of this Python."""
    env = {"RGFLOW_PROFILE": "book", **os.environ}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env[name] = "1"
    env.update(JUPYTER_PREFER_ENV_PATH="1", JUPYTER_PLATFORM_DIRS="1", PYTHONWARNINGS="ignore::DeprecationWarning")
    return env


def execute(source: Path, target: Path, timeout: int) -> tuple[bool, float, str]:
    """Runs one notebook; returns whether it succeeded, its seconds, and the end of its error output.

    The target appears only when every cell has run; an older target of a failing notebook is deleted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.partial.ipynb")
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(source),
        str(partial),
        "-k",
        "python3",
        "--no-progress-bar",
        "--cwd",
        str(source.parent),
        "--execution-timeout",
        str(timeout),
    ]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode == 0:
            os.replace(partial, target)
            return True, seconds, ""
        target.unlink(missing_ok=True)
        return False, seconds, "\n".join((done.stderr or done.stdout).strip().splitlines()[-40:])
    finally:
        partial.unlink(missing_ok=True)


def chosen(sources: Path, names: list[str]) -> list[Path]:
    """The notebooks to run: all, or those named (with or without .ipynb); ValueError for an unknown name."""
    available = {path.stem: path for path in sorted(sources.glob("[0-9][0-9]_*.ipynb"))}
    wanted = [Path(name).stem for name in names] or list(available)
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise ValueError(f"no notebook named {', '.join(unknown)}; there are {', '.join(available) or 'none'}")
    return [available[name] for name in wanted]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks to run, by name (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds one cell may take (default 1200)")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="folder of notebooks (default notebooks/)")
    parser.add_argument("--out", type=Path, default=EXECUTED, help="output folder (default book/executed/)")
    options = parser.parse_args(arguments)
    try:
        sources = chosen(options.sources.resolve(), options.names)
    except ValueError as error:
        parser.error(str(error))
    out = options.out.resolve()
    if not options.names:  # a chapter that was renamed must not stay in the book
        for old in set(out.glob("*.ipynb")) - {out / source.name for source in sources}:
            old.unlink()
    profile = environment()["RGFLOW_PROFILE"]
    print(f"{len(sources)} notebooks, profile {profile}, {options.jobs} at a time", flush=True)
    failed = 0
    with ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        runs = {source: pool.submit(execute, source, out / source.name, options.timeout) for source in sources}
        for source, run in runs.items():
            good, seconds, error = run.result()
            failed += not good
            print(f"{'ok    ' if good else 'FAILED'} {source.stem:<24} {seconds:7.1f} s", flush=True)
            if not good:
                print(error, file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
