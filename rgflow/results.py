"""Numbers a chapter measured, kept as JSON beside the machine, profile, seed and commit they came from."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rgflow.files import replacing

PROFILES = ("quick", "book", "full")
REPOSITORY = Path(__file__).resolve().parent.parent
COMMITTED = REPOSITORY / "results"

Number = bool | int | float | list[Any]
Entry = dict[str, Any]


def profile() -> str:
    """The profile a chapter runs in: RGFLOW_PROFILE, one of quick, book, full; book when it is not set.

    Raises ValueError for any other value.
    """
    name = os.environ.get("RGFLOW_PROFILE") or "book"
    if name not in PROFILES:
        raise ValueError(f"RGFLOW_PROFILE is {name!r}; it must be one of {', '.join(PROFILES)}")
    return name


def folder() -> Path:
    """Where `record` writes: RGFLOW_RESULTS, or a scratch folder of this user; `make results` alone names results/."""
    named = os.environ.get("RGFLOW_RESULTS")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"rgflow-results-{user}"


def record(
    chapter: str,
    name: str,
    value: Any,
    interval: tuple[Any, Any] | None = None,
    n: int | None = None,
    seed: int | None = None,
    unit: str | None = None,
    note: str | None = None,
) -> Entry:
    """Writes one measured number of a chapter to `<folder>/<chapter>.json` and returns its entry.

    Other entries of the file stay; an entry of the same name is replaced. Two processes must not write the same
    chapter at once. Written to a temporary file and renamed.

    Arguments:
        chapter: the notebook's name, for example "01_pinwheel".
        name: what was measured, unique in the chapter.
        value: a finite number, or an array, tensor or (nested) list of them (a curve).
        interval: (low, high), each of the shape of `value`, in the same unit; 95 % unless `note` says otherwise.
        n: how many samples, images or seeds the value rests on.
        seed: the random seed of the measurement.
        unit: for example "bits/dim"; None for a pure number.
        note: one line a reader of the table needs.

    Raises ValueError for a chapter that is not named NN_name, an empty name, a value that is not finite, an interval
    of another shape or with low > high, or n < 1.
    """
    path = _file(chapter, folder())
    if not name or not isinstance(name, str):
        raise ValueError(f"name is {name!r}; it must be a non-empty string")
    if n is not None and n < 1:
        raise ValueError(f"n of {name!r} is {n}; it must be at least 1")
    number = _number(value, name)
    entry: Entry = {
        "value": number,
        "interval": None if interval is None else _interval(interval, number, name),
        "n": None if n is None else int(n),
        "seed": None if seed is None else int(seed),
        "unit": unit,
        "note": note,
        "profile": profile(),
        "commit": commit(),
        "hardware": hardware(),
    }
    entries = _read(path) if path.exists() else {}
    entries[name] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(entries, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return entry


def keep(path: Path, options: object, numbers: Mapping[str, float]) -> None:
    """Writes the numbers of a benchmark beside its options (a dataclass), hardware and commit, as JSON.

    Of paths only the last part is written: folders are this machine's.
    """
    chosen = {name: value.name if isinstance(value, Path) else value for name, value in asdict(options).items()}
    content = {"options": chosen, "numbers": dict(numbers), "hardware": hardware(), "commit": commit()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def kept(run: str, where: Path | None = None) -> dict[str, float] | None:
    """The numbers that `keep` wrote as results/runs/RUN.json; None if that run has not been made, or its file is lost.

    Arguments:
        run: without ending, for example "reach/msds1".
        where: folder of results; the repository's by default.

    ValueError: a file that is not one of `keep`.
    """
    path = (COMMITTED if where is None else Path(where)) / "runs" / f"{run}.json"
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["numbers"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a run that results.keep has written: {error!r}") from None


def load(chapter: str, where: Path | None = None) -> dict[str, Entry]:
    """The entries of a chapter by name, from the repository's results/ or from the folder `where`.

    Raises FileNotFoundError when the chapter has no file there, ValueError for a file that is not one of ours.
    """
    path = _file(chapter, COMMITTED if where is None else Path(where))
    if not path.exists():
        raise FileNotFoundError(f"no results of {chapter!r} at {path}; make results writes them")
    return _read(path)


@dataclass(frozen=True)
class Comparison:
    """One number of two runs: its name, the verdict, and both values (None where a run has none).

    Verdicts: "agrees"; "differs"; "other profile" (not compared); "new" (not committed); "not measured" (not in the
    fresh run).
    """

    name: str
    verdict: str
    fresh: Number | None
    committed: Number | None


def compare(fresh: Mapping[str, Entry], committed: Mapping[str, Entry], tolerance: float = 1e-3) -> list[Comparison]:
    """Each number of a fresh run beside the committed one, in order of name.

    Two numbers agree when they are equal to the relative `tolerance`, or when both have intervals and these overlap
    (at every point of a curve).
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; it must be 0 or more")
    return [_compare(name, fresh.get(name), committed.get(name), tolerance) for name in sorted({*fresh, *committed})]


def _compare(name: str, fresh: Entry | None, committed: Entry | None, tolerance: float) -> Comparison:
    if fresh is None or committed is None:
        only = fresh or committed or {"value": None}
        missing = "new" if committed is None else "not measured"
        return Comparison(name, missing, only["value"] if fresh else None, only["value"] if committed else None)
    if fresh["profile"] != committed["profile"]:
        verdict = "other profile"
    else:
        verdict = "agrees" if _agree(fresh, committed, tolerance) else "differs"
    return Comparison(name, verdict, fresh["value"], committed["value"])


def _agree(a: Entry, b: Entry, tolerance: float) -> bool:
    x, y = np.asarray(a["value"], dtype=float), np.asarray(b["value"], dtype=float)
    if x.shape != y.shape:
        return False
    close = np.isclose(x, y, rtol=tolerance, atol=1e-12)
    if a["interval"] and b["interval"]:
        (low_a, high_a), (low_b, high_b) = np.asarray(a["interval"], float), np.asarray(b["interval"], float)
        close |= (low_a <= high_b) & (low_b <= high_a)
    return bool(np.all(close))


@functools.cache
def commit() -> str:
    """The commit of this checkout, with "+changes" when files other than results/ differ from it; else "unknown"."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, timeout=30)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD") if (REPOSITORY / ".git").exists() else ""
        changed = git("status", "--porcelain", "--", ".", ":!results") if head else ""
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (head + ("+changes" if changed else "")) or "unknown"


def hardware() -> dict[str, Any]:
    """What this process runs on: cpu, cores, threads torch uses, gpu (None without one), torch version."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": str(torch.__version__),
    }


@functools.cache
def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _file(chapter: str, where: Path) -> Path:
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", chapter):
        raise ValueError(f"chapter is {chapter!r}; it must be a notebook's name such as '01_pinwheel'")
    return where / f"{chapter}.json"


def _read(path: Path) -> dict[str, Entry]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) and "value" in e for e in entries.values()):
        raise ValueError(f"{path} does not hold results: every entry needs a value")
    return entries


def _number(value: Any, name: str) -> Number:
    plain = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if plain.dtype.kind not in "biuf":
        raise ValueError(f"value of {name!r} is {value!r}; it must be a number or an array of numbers")
    plain = plain.tolist()
    if not all(math.isfinite(v) for v in np.ravel(plain)):
        raise ValueError(f"value of {name!r} is not finite: {plain}")
    return plain


def _interval(interval: tuple[Any, Any], value: Number, name: str) -> list[Number]:
    if len(interval) != 2:
        raise ValueError(f"interval of {name!r} has {len(interval)} parts; it must be (low, high)")
    low, high = (_number(end, f"{name} interval") for end in interval)
    if np.shape(low) != np.shape(value) or np.shape(high) != np.shape(value):
        raise ValueError(
            f"interval of {name!r} has ends of shape {np.shape(low)} and {np.shape(high)}; "
            f"both must have the value's, {np.shape(value)}"
        )
    if np.any(np.asarray(low) > np.asarray(high)):
        raise ValueError(f"interval of {name!r} is {[low, high]}; low must not exceed high")
    return [low, high]
