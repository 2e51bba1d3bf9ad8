"""Trains the shipped models and runs the studies, one after the other: python scripts/jobs.py --shared ../shared/data

Each job of scripts/jobs.toml is a command with a product, a file; jobs whose product is there are done. Trainings that
were stopped go on. Several queues may run side by side, on one thread each: a job that another one has is left to it.
Jobs that need real images or what another job makes (`needs`) are left out until it is there. What a job prints goes
to runs/queue/NAME.log.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """Commands, the file they make, and what must be there first.

    What it needs: names in the folder of real images, and, with a folder before them, files of the project.
    """

    name: str
    product: str
    commands: Sequence[str]
    needs: tuple[str, ...] = ()


def read(path: Path) -> list[Job]:
    """The jobs of a file, in its order: of an entry with `each` one for every combination, the last key quickest.

    ValueError: two jobs with one name or product, or a placeholder that `each` does not have.
    """
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["job"]:
        cases = [{}]
        for key, values in entry.get("each", {}).items():
            cases = [{**case, key: value} for case in cases for value in values]
        for case in cases:
            needs = entry.get("needs", [])
            texts = [entry["name"], entry["product"], *([needs] if isinstance(needs, str) else needs)]
            try:
                name, product, *needs = (text.format(**case) for text in texts)
                commands = [command.format(**case, shared="{shared}") for command in entry["commands"]]
            except KeyError as error:
                raise ValueError(f"{path.name}: {entry['name']} has {{{error.args[0]}}}, but `each` does not") from None
            found.append(Job(name, product, commands, tuple(needs)))
    for what in ("name", "product"):
        values = [getattr(job, what) for job in found]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{path.name}: more than one job has the {what} {', '.join(twice)}")
    return found


def possible(job: Job, shared: Path | None) -> bool:
    """Whether all that a job needs is at hand."""
    folders = [ROOT if "/" in need else shared for need in job.needs]
    return all(folder and (folder / need).exists() for folder, need in zip(folders, job.needs, strict=True))


def run(job: Job, shared: Path | None, log: Path) -> bool:
    """Runs the commands of a job in turn; whether all of them ended well and the product is there."""
    python = shlex.quote(sys.executable)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with open(log, "a") as out:
        for command in job.commands:
            text = command.replace("{shared}", str(shared))
            out.write(f"$ {text}\n")
            out.flush()
            words = [sys.executable if word == "python" else word for word in shlex.split(text)]
            words = [sys.executable, "-m", "rgflow", *words[1:]] if words[0] == "rgflow" else words
            done = subprocess.run(words, cwd=ROOT, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
            if done.returncode:
                out.write(f"exit status {done.returncode} with {python}\n")
                return False
    return (ROOT / job.product).exists()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="jobs to run, by the start of their names (default: all)")
    parser.add_argument("--shared", type=Path, help="folder with the real images")
    parser.add_argument("--list", action="store_true", help="only tell what is done and what is not")
    options = parser.parse_args(arguments)
    jobs = read(ROOT / "scripts" / "jobs.toml")
    if options.names:
        jobs = [job for name in options.names for job in jobs if job.name.startswith(name)]
        if not jobs:
            parser.error(f"no job begins with {' or '.join(options.names)}")
    shared = options.shared.resolve() if options.shared else None
    if options.list:
        for job in jobs:
            state = "done" if (ROOT / job.product).exists() else "" if possible(job, shared) else "waits"
            print(f"{state:5s} {job.name:32s} {job.product}")
        return 0
    logs = ROOT / "runs" / "queue"
    logs.mkdir(parents=True, exist_ok=True)
    failed = 0
    for job in jobs:
        if (ROOT / job.product).exists() or not possible(job, shared):
            continue
        with open(logs / f"{job.name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another queue has it
            if (ROOT / job.product).exists():
                continue
            start = time.time()
            good = run(job, shared, logs / f"{job.name}.log")
            failed += not good
            print(f"{'ok    ' if good else 'FAILED'} {job.name:32s} {(time.time() - start) / 60:6.1f} min", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
