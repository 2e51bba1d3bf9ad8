"""scripts/jobs.py reads its jobs, leaves out what is done or cannot be done yet, and says when one failed."""

from __future__ import annotations

import fcntl
import re
import shlex
import sys
from pathlib import Path

import pytest
import tyro
from benchmark_files import load

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import jobs  # noqa: E402

WRITE = """["python -c \\"open('made.txt', 'a').write('x')\\""]"""


def project(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with these jobs, in the place of ours."""
    (folder / "scripts").mkdir()
    (folder / "scripts" / "jobs.toml").write_text(text)
    monkeypatch.setattr(jobs, "ROOT", folder)
    return folder / "scripts" / "jobs.toml"


def job(name: str, commands: str = WRITE, product: str = "made.txt", more: str = "") -> str:
    return f'[[job]]\nname = "{name}"\nproduct = "{product}"\ncommands = {commands}\n{more}\n'


def test_each_makes_every_combination_the_last_quickest(tmp_path: Path, monkeypatch) -> None:
    more = 'needs = ["images", "weights/{kind}.txt"]\neach = { seed = [0, 1], kind = ["a", "b"] }'
    text = job("{kind}-{seed}", '["run {kind} {seed} {shared}/images"]', "{kind}{seed}.json", more)
    found = jobs.read(project(tmp_path, text, monkeypatch))
    assert [j.name for j in found] == ["a-0", "b-0", "a-1", "b-1"], "a pair side by side"
    assert found[2] == jobs.Job("a-1", "a1.json", ["run a 1 {shared}/images"], ("images", "weights/a.txt"))
    assert jobs.read(project_of(tmp_path, job("one", more='needs = "images"')))[0].needs == ("images",)
    assert jobs.read(project_of(tmp_path, job("one")))[0].needs == ()


def project_of(folder: Path, text: str) -> Path:
    path = folder / "scripts" / "jobs.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text, message", [
    (job("a", product="1") + job("a", product="2"), "more than one job has the name a"),
    (job("a") + job("b"), "more than one job has the product made.txt"),
    (job("a-{seed}", more="each = { seed = [1, 1] }"), "the name a-1"),
    (job("a-{sed}", more="each = { seed = [1] }"), r"a-\{sed\} has \{sed\}, but `each` does not"),
])  # fmt: skip
def test_jobs_that_cannot_be_told_apart(text: str, message: str, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match=message):
        jobs.read(project(tmp_path, text, monkeypatch))


def test_a_job_waits_for_images_and_for_files_of_the_project(tmp_path: Path, monkeypatch, capsys) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    project(tmp_path, job("a", more='needs = ["faces.npz", "weights/faces.txt"]'), monkeypatch)
    (only,) = jobs.read(tmp_path / "scripts" / "jobs.toml")
    assert not jobs.possible(only, shared)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "faces.txt").touch()
    assert not jobs.possible(only, shared) and not jobs.possible(only, None)
    (tmp_path / "faces.npz").touch()  # not where the images are
    assert not jobs.possible(only, shared)
    assert jobs.main(["--shared", str(shared)]) == 0 and not (tmp_path / "made.txt").exists(), "left out, not failed"
    jobs.main(["--list", "--shared", str(shared)])
    assert capsys.readouterr().out.split() == ["waits", "a", "made.txt"]
    (shared / "faces.npz").touch()
    assert jobs.possible(only, shared) and not jobs.possible(only, None)
    (tmp_path / "weights" / "faces.txt").unlink()
    assert not jobs.possible(only, shared), "the model is missing: the command would fail"


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch, capsys) -> None:
    project(tmp_path, job("a"), monkeypatch)
    assert jobs.main([]) == 0 and jobs.main([]) == 0
    assert (tmp_path / "made.txt").read_text() == "x"
    assert capsys.readouterr().out.split()[:2] == ["ok", "a"]
    jobs.main(["--list"])
    assert capsys.readouterr().out.split() == ["done", "a", "made.txt"]


def test_the_folder_of_images_is_put_into_the_command(tmp_path: Path, monkeypatch) -> None:
    command = """["python -c \\"open('made.txt', 'w').write('{shared}/images')\\""]"""
    project(tmp_path, job("a", command), monkeypatch)
    assert jobs.main(["--shared", str(tmp_path)]) == 0
    assert (tmp_path / "made.txt").read_text() == f"{tmp_path.resolve()}/images"


def test_a_failing_command_ends_its_job_and_not_the_others(tmp_path: Path, monkeypatch, capsys) -> None:
    fails = """["python -c \\"import sys; print('why'); sys.exit(3)\\"", "python -c \\"open('later', 'w')\\""]"""
    nothing = '["python -c pass"]'
    text = job("fails", fails, "later") + job("nothing", nothing, "absent") + job("good")
    project(tmp_path, text, monkeypatch)
    assert jobs.main([]) == 1
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["FAILED", "fails"],
        ["FAILED", "nothing"],  # its command ended well, but what it should make is not there
        ["ok", "good"],
    ]
    assert not (tmp_path / "later").exists(), "the second command ran after the first had failed"
    log = (tmp_path / "runs" / "queue" / "fails.log").read_text()
    assert "why" in log and "exit status 3" in log


def test_a_job_that_another_queue_has_is_left_to_it(tmp_path: Path, monkeypatch) -> None:
    project(tmp_path, job("a"), monkeypatch)
    (tmp_path / "runs" / "queue").mkdir(parents=True)
    with open(tmp_path / "runs" / "queue" / "a.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # the weakest one
        assert jobs.main([]) == 0 and not (tmp_path / "made.txt").exists()
    assert jobs.main([]) == 0 and (tmp_path / "made.txt").exists()


def test_jobs_by_the_start_of_their_names(tmp_path: Path, monkeypatch) -> None:
    project(tmp_path, job("model-a", product="1") + job("study-b"), monkeypatch)
    assert jobs.main(["study"]) == 0 and (tmp_path / "made.txt").exists()
    with pytest.raises(SystemExit):
        jobs.main(["nothing"])


# ---- ours ----

OURS = jobs.read(ROOT / "scripts" / "jobs.toml")


def test_no_script_hides_a_module_of_python() -> None:
    """As scripts/queue.py once did: beside it nothing that needs Python's own queue could start."""
    assert not {path.stem for path in (ROOT / "scripts").glob("*.py")} & sys.stdlib_module_names


def test_what_our_jobs_need_is_shipped_made_by_a_job_or_an_image_set() -> None:
    products = {j.product for j in OURS}
    for needed in {need for j in OURS for need in j.needs}:
        assert needed in products or (ROOT / needed).exists() or needed in ("celeba_aligned_32.npz", "MNIST"), needed
    order = {j.product: k for k, j in enumerate(OURS)}
    late = [j.name for k, j in enumerate(OURS) if any(order.get(need, -1) > k for need in j.needs)]
    assert not late, "what they need is made after them, so a queue would leave them out"


@pytest.mark.parametrize("one", [j for j in OURS if "benchmarks/" in j.commands[-1]], ids=lambda j: j.name)
def test_the_benchmarks_take_the_options_of_our_jobs(one: jobs.Job) -> None:
    script, *arguments = shlex.split(one.commands[-1].replace("{shared}", "images"))[1:]
    benchmark = load(Path(script).stem)
    options = tyro.cli(benchmark.Options, args=arguments)
    folder = options.out if options.out.suffix else options.out / Path(one.product).name
    assert str(folder) == one.product, "it would be run again and again"
    assert re.fullmatch(r"\S+\.py", Path(script).name) and (ROOT / script).exists()
