"""Model files: bit-equal round trips, and one clear line for every broken file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rgflow import checkpoints
from rgflow.checkpoints import CheckpointError, load, read_card, save
from rgflow.files import locked, sweep
from rgflow.flow import RealNVPConfig, RGFlowConfig, build

TINY = {"channels": 1, "size": 8, "nlayers": 1, "nres": 1, "nmlp": 1, "nhidden": 8}
CONFIGS = [
    RGFlowConfig(**TINY),
    RGFlowConfig(**{**TINY, "size": (4, 8), "nlayers": (2,), "net": "plain", "prior": "gaussian"}),
    RGFlowConfig(**TINY, share_levels=True),
    RealNVPConfig(channels=1, size=8),
]


def tiny_flow(config=CONFIGS[0]):
    flow = build(config, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return flow


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_save_and_load_give_the_same_bits(tmp_path, config, dtype):
    flow = tiny_flow(config).to(dtype)
    save(flow, tmp_path / "m.safetensors", {"data": "digits8", "steps": 3})
    state = torch.random.get_rng_state()
    back = load(tmp_path / "m.safetensors")
    assert torch.equal(state, torch.random.get_rng_state()), "loading moved the global random generator"
    assert back.config == config and back.dtype == dtype
    assert list(back.state_dict()) == list(flow.state_dict())
    for name, tensor in flow.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
    x = torch.randn(2, *flow.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    assert torch.equal(flow.log_prob(x), back.log_prob(x))
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors"], "a temporary file was left"


def test_load_takes_a_dtype_and_the_same_flow_gives_the_same_bytes(tmp_path):
    flow = tiny_flow()
    save(flow, tmp_path / "a.safetensors")
    save(flow, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert load(tmp_path / "a.safetensors", torch.float64).dtype == torch.float64


def test_card_is_read_without_the_weights(tmp_path):
    flow = tiny_flow()
    save(flow, tmp_path / "m.safetensors", {"data": "digits8", "test_bits_per_dim": 2.5})
    card = read_card(tmp_path / "m.safetensors")
    assert card["model"] == "RGFlowConfig" and card["card"] == {"data": "digits8", "test_bits_per_dim": 2.5}
    assert card["config"]["size"] == [8, 8] and card["dtype"] == "F32"
    assert card["parameters"] == sum(p.numel() for p in flow.parameters())


def test_card_entries_and_hand_made_flows_are_checked(tmp_path):
    with pytest.raises(TypeError, match="text and numbers"):
        save(tiny_flow(), tmp_path / "m.safetensors", {"data": [1]})
    flow = tiny_flow()
    flow.config = None
    with pytest.raises(ValueError, match="no configuration"):
        save(flow, tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


def test_bare_names_are_shipped_models(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model file 'msds9'.*shipped: none"):
        load("msds9")
    save(tiny_flow(), tmp_path / "tiny.safetensors")
    assert load("tiny").config == CONFIGS[0]
    with pytest.raises(FileNotFoundError, match=r"shipped: tiny"):
        load("msds9")
    with pytest.raises(FileNotFoundError):
        load("elsewhere/tiny")


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 400, message
    return message


def rewritten(path, change_tensors=None, change_header=None, digest=True):
    """The file with other tensors or another header, and the checksum that goes with them."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["rgflow"])
    if change_tensors:
        change_tensors(tensors)
    if change_header:
        change_header(header)
    if digest:
        header["sha256"] = checkpoints._digest(tensors, header)
    safetensors.torch.save_file(tensors, path, {"rgflow": json.dumps(header)})


def first(tensors):
    return sorted(tensors)[0]


def bare(path, text):
    """A safetensors file whose header is this text."""
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"rgflow": text})


def option(**changes):
    return lambda header: header["config"].update(changes)


BROKEN = {
    "empty": (lambda p: p.write_bytes(b""), "no model file"),
    "text": (lambda p: p.write_text("hello"), "no model file"),
    "pickle": (lambda p: torch.save({"flow": torch.zeros(2)}, p), "no model file"),
    "half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated or corrupted"),
    "foreign": (lambda p: safetensors.torch.save_file({"a": torch.zeros(2)}, p), "no model file of rgflow"),
    "not JSON": (lambda p: bare(p, "{"), "not JSON"),
    "a list": (lambda p: bare(p, "[1]"), "lacks format_version"),
    "no config": (lambda p: rewritten(p, None, lambda h: h.pop("config")), "lacks config"),
    "config list": (lambda p: rewritten(p, None, lambda h: h.update(config=[1])), "lacks config"),
    "version": (lambda p: rewritten(p, None, lambda h: h.update(format_version=2)), "format version 2"),
    "class": (lambda p: rewritten(p, None, lambda h: h.update(config_class="OddConfig")), "OddConfig"),
    "no config class": (lambda p: rewritten(p, None, lambda h: h.update(config_class="build")), "does not know"),
    "unknown option": (lambda p: rewritten(p, None, option(colour="red")), "does not accept"),
    "bad size": (lambda p: rewritten(p, None, option(size=7)), "does not accept"),
    "wider": (lambda p: rewritten(p, None, option(nhidden=16)), "shape"),
    "deeper": (lambda p: rewritten(p, None, option(nlayers=2)), "lacks"),
    "shallower": (lambda p: rewritten(p, None, option(size=4)), "no place for"),
    "missing": (lambda p: rewritten(p, lambda t: t.pop(first(t))), "lacks 1 tensors"),
    "shape": (lambda p: rewritten(p, lambda t: t.update({first(t): torch.zeros(3, 3, 3)})), "shape (3, 3, 3)"),
    "edited": (lambda p: rewritten(p, lambda t: t[first(t)].add_(1), digest=False), "checksum"),
    "edited card": (lambda p: rewritten(p, None, lambda h: h["card"].update(a=1), digest=False), "checksum"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_give_one_line(tmp_path, case):
    path = tmp_path / "m.safetensors"
    save(tiny_flow(), path)
    breaking, message = BROKEN[case]
    breaking(path)
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert message in one_line(error) and str(path) in one_line(error)


def test_pickles_are_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"x": Trap()}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError):
        load(tmp_path / "m.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    flow = tiny_flow(RGFlowConfig(**{**TINY, "size": 4}))
    save(flow, path)
    return flow, path.read_bytes(), path.parent


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_harmless(saved, place, flip):
    flow, data, folder = saved
    position = int(place * len(data))
    broken = bytearray(data)
    broken[position] ^= flip
    (folder / "broken.safetensors").write_bytes(broken)
    try:
        back = load(folder / "broken.safetensors")
    except CheckpointError:
        return
    for name, tensor in flow.state_dict().items():  # such as a space of the header's padding
        assert torch.equal(tensor, back.state_dict()[name])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(tiny_flow(), path)
    before = path.read_bytes()

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save(tiny_flow(CONFIGS[1]), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.safetensors"]


HOLDER = """
import sys, time
from pathlib import Path
from rgflow.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_locked_until_the_process_dies(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError) as error, locked(tmp_path):
            pass
        assert str(error.value) == f"another process trains in {tmp_path}; wait for it, or use another folder"
    finally:
        holder.kill()
        holder.wait()
    for _ in range(2):  # and again after it was let go
        with locked(tmp_path):
            pass


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with locked(tmp_path):
        pass


def test_sweep_takes_temporary_files_only(tmp_path):
    for name in (".m.ckpt.12.tmp", ".lock", "m.tmp", "m.ckpt"):
        (tmp_path / name).touch()
    sweep([tmp_path, tmp_path / "nowhere"])
    assert sorted(os.listdir(tmp_path)) == [".lock", "m.ckpt", "m.tmp"]
