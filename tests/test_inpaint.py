"""Inpainting of uint8 images and of picture files: known pixels stay, the hole's own content does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rgflow import Flow, RealNVPConfig, RGFlowConfig, build, checkpoints, holes, inpaint
from rgflow.cli import main
from rgflow.modes import Ascent
from rgflow.pictures import read_mask, read_picture
from rgflow.posterior import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(config: RGFlowConfig | RealNVPConfig) -> Flow:
    flow = build(config, generator())
    with torch.no_grad():
        for weight in flow.parameters():
            weight.normal_(0, 0.1, generator=generator(weight.numel()))
    return flow


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few steps of ascent, a few samples: what they find is the matter of other tests."""
    monkeypatch.setattr(holes, "Ascent", lambda: Ascent(steps=5))

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        with torch.no_grad():
            fills = self.decode(self.draw_latents(n, generator))
        return Samples(fills, *[None] * 6, 1.0, [], [])

    monkeypatch.setattr(holes.HoleDensity, "sample", sample)


@pytest.mark.parametrize("method", ["latent", "pixel", "sample"])
@pytest.mark.parametrize("kind", ["rgflow", "realnvp"])
def test_only_the_hole_is_filled(kind: str, method: str) -> None:
    small = {"channels": 3, "size": 8, "nres": 1, "nhidden": 8}
    flow = random_flow(RGFlowConfig(nlayers=1, **small) if kind == "rgflow" else RealNVPConfig(**small))
    image = torch.randint(0, 256, flow.shape, generator=generator(), dtype=torch.uint8)
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:4, 3:5] = hole[7, 0] = True
    filled = inpaint.fill(flow, image, hole, method, 2, generator(1))
    assert filled.dtype == torch.uint8 and filled.shape == (2, 3, 8, 8)
    assert torch.equal(filled[:, :, ~hole], image[:, ~hole].expand(2, -1, -1))
    if method != "pixel":  # starts from all patches there are
        assert not torch.equal(filled[0][:, hole], filled[1][:, hole])
    if kind == "rgflow":
        other = image.masked_fill(hole, 7)
        assert torch.equal(inpaint.fill(flow, other, hole, method, 2, generator(1)), filled), "nothing of it leaks"


def test_fill_names_what_is_wrong() -> None:
    flow = random_flow(RGFlowConfig(channels=1, size=8, nlayers=1, nres=1, nhidden=8))
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="method must be latent, pixel or sample, not 'best'"):
        inpaint.fill(flow, image, (0, 0, 2, 2), "best")
    with pytest.raises(ValueError, match=r"uint8 of shape \(1, 8, 8\), not torch.float32 of \(1, 8, 8\)"):
        inpaint.fill(flow, image.float(), (0, 0, 2, 2))
    with pytest.raises(ValueError, match=r"not torch.uint8 of \(1, 4, 8\)"):
        inpaint.fill(flow, image[:, :4], (0, 0, 2, 2))


def write(path, pixels: Tensor):
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(path)
    return path


def test_pictures_and_masks_are_read_alike(tmp_path) -> None:
    colours = torch.randint(0, 256, (3, 8, 12), generator=generator(), dtype=torch.uint8)
    path = write(tmp_path / "a.png", colours)
    assert torch.equal(read_picture(path, (8, 12)), colours)
    assert read_picture(path, (8, 12), 1).shape == (1, 8, 12)
    assert read_picture(path, (4, 4)).shape == (3, 4, 4), "cut to its middle square, then made smaller"
    bright = torch.zeros(1, 8, 12, dtype=torch.uint8)
    bright[0, :, 2:6] = 255  # the left half of the middle square
    mask = write(tmp_path / "mask.png", bright)
    assert torch.equal(read_mask(mask, path, (8, 12)), bright[0] > 127)
    assert torch.equal(read_mask(mask, path, (4, 4)), torch.tensor([[True, True, False, False]] * 4))
    with pytest.raises(ValueError, match="is 8 x 12 pixels, the model takes 4 x 8"):
        read_picture(path, (4, 8))
    small = write(tmp_path / "small.png", bright[:, :4])
    with pytest.raises(ValueError, match="small.png is 4 x 12 pixels, the picture .*a.png 8 x 12"):
        read_mask(small, path, (4, 4))


@pytest.fixture
def files(tmp_path):
    """A model file and a picture."""
    flow = random_flow(RGFlowConfig(channels=3, size=8, nlayers=1, nres=1, nhidden=8))
    checkpoints.save(flow, tmp_path / "m.safetensors", {})
    colours = torch.randint(0, 256, (3, 8, 8), generator=generator(), dtype=torch.uint8)
    return tmp_path, colours, write(tmp_path / "photo.png", colours)


def test_the_command_fills_a_box_or_a_mask(files, capsys) -> None:
    folder, colours, photo = files
    arguments = ["inpaint", "--model", str(folder / "m.safetensors"), "--image", str(photo)]
    assert main([*arguments, "--box", "6,1,4,3", "--out", str(folder / "new" / "box.png")]) == 0
    assert capsys.readouterr().out == f"1 fill: {folder / 'new' / 'box.png'}\n"
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[[6, 7, 0, 1], 1:4] = True
    filled = torch.from_numpy(np.array(Image.open(folder / "new" / "box.png"))).permute(2, 0, 1)
    assert torch.equal(filled[:, ~hole], colours[:, ~hole]) and not torch.equal(filled, colours)
    mask = write(folder / "mask.png", 255 * hole.byte()[None])
    masked = [*arguments, "--mask", str(mask), "--out", str(folder / "mask_out.png")]
    assert main(masked) == 0
    again = torch.from_numpy(np.array(Image.open(folder / "mask_out.png"))).permute(2, 0, 1)
    assert torch.equal(again, filled)
    assert main([*masked, "-n", "4", "--scale", "2", "--method", "sample", "--seed", "3"]) == 0
    assert capsys.readouterr().out.endswith(f"4 fills: {folder / 'mask_out.png'}\n")
    assert min(Image.open(folder / "mask_out.png").size) >= 32


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the hole is either a --box or a --mask, one of them"),
        (["--box", "1,1,2,2", "--mask", "x.png"], "one of them"),
        (["--box", "1,1,2"], "box must be four integers, top,left,height,width, not '1,1,2'"),
        (["--box", "1,1,2,2.5"], "box must be four integers"),
        (["--box", "a"], "box must be a number or numbers"),
        (["--box", "1,1,9,2"], "does not fit an image of 8 x 8"),
        (["--box", "1,1,0,2"], "the hole is empty"),
        (["--box", "1,1,2,2", "--n", "0"], "n and scale must be at least 1"),
        (["--mask", "none.png"], "none.png"),
        (["--box", "1,1,2,2", "--method", "best"], "method"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(files, capsys, flags: list[str], message: str) -> None:
    folder, _, photo = files
    out = folder / "out.png"
    arguments = ["inpaint", "--model", str(folder / "m.safetensors"), "--image", str(photo), "--out", str(out)]
    assert main([*arguments, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rgflow: ") and error.count("\n") == 1 and message in error and not out.exists()


def test_pictures_of_the_models_own_size_are_prepared_like_others(tmp_path) -> None:
    """16 bits are halved, not clipped, and transparent pixels are white, as in the folders that models learn from."""
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert torch.equal(
        read_picture(tmp_path / "deep.png", (8, 8), 1)[0], torch.from_numpy((deep >> 8).astype(np.uint8))
    )
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[..., 0] = 200
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = read_picture(tmp_path / "clear.png", (8, 8))
    assert found[:, :4].flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 0] and (found[:, 4:] == 255).all()
