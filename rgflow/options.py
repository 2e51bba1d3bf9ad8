"""What each command can be told: dataclasses whose fields become its flags (`flags.parse`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rgflow.ising import CRITICAL


@dataclass(frozen=True)
class DataFlags:
    """Which images.

    Arguments:
        data: name of the set: celeba32, mnist32, cifar10, chair600, msds1, msds2, patches32, patches64, digits8, or
            images for your own.
        data_path: where the set lies; for images, the folder, .npy or .npz file.
        size: edge of the images in pixels, or height,width for arrays (images) that have that shape; None: that of
            the set.
        channels: 1 or 3, colour is turned to grey or grey repeated; None: those of the set.
        download: fetch mnist32, cifar10 or celeba32 where missing.
        test_index: file that names the test images (images only); None: the set's own, or the last tenth by data_seed.
        data_seed: chooses the test set where the data come without one, and the pictures of msds1 and msds2.
    """

    data: str
    data_path: str | None = None
    size: int | tuple[int, int] | None = None
    channels: int | None = None
    download: bool = False
    test_index: str | None = None
    data_seed: int = 0


@dataclass(frozen=True)
class TrainFlags:
    """What to train.

    Arguments:
        model: rgflow, realnvp for the baseline, or ode for neural ODEs; --help shows the flags of the one that is
            chosen.
        preset: other defaults, which flags of their own override. paper: none; authors: those of their code
            (weight_decay 5e-2, order authors, stream full); small: the paper's model, narrow and shallow; fast: what
            learns fastest. Their numbers per level are cut to the levels of the images, or the last is repeated; for
            realnvp and ode only the settings of training count.
        flip: yes: training mirrors images left to right at random; no: it does not; None: as the set asks for (celeba32
            and chair600 do).
    """

    model: Literal["rgflow", "realnvp", "ode"] = "rgflow"
    preset: Literal["paper", "authors", "small", "fast"] = "paper"
    flip: Literal["yes", "no"] | None = None


@dataclass(frozen=True)
class EnergyFlags:
    """Which energy, and what is asked of the flow besides.

    Arguments:
        energy: ising, the Ising model on the torus as a model of continuous fields; or phi4, the free field with
            lam 0.
        model: rgflow, realnvp, or ode; --help shows the flags of the one that is chosen.
        size: edge of the lattice.
        temperature: of ising, in units of the bond; the critical one is 2.269185314213022.
        offset: of ising: smallest eigenvalue of K.
        kappa: of phi4: hopping parameter.
        lam: of phi4: the coupling lambda.
        channels: of phi4: 1 real, 2 complex.
        symmetry: none; or flip (x to -x), reflections, square, translations, or several such as flip+square: the
            density is averaged over that group, exactly.
        penalty: above 0: the flow is not averaged, and this times its asymmetry is added to the loss.
        gradient: total; or path, without the part whose mean is 0: less noise where the flow is good, for an encoding
            more in each step; not for ode, and with memory store only.
        forward: a share of the loss, at least 0 and below 1, that is the divergence the other way round, on fields of
            HMC chains that go on beside the training: what the flow leaves out of its draws it then learns from there.
        hmc: evaluations also run chains of HMC, in the fields and in the latents.
        hmc_moves: proposals of these chains.
        hmc_leaps: leapfrog steps of a proposal.
        hmc_step: of the leapfrog.
    """

    energy: Literal["ising", "phi4"]
    model: Literal["rgflow", "realnvp", "ode"] = "rgflow"
    size: int = 16
    temperature: float = CRITICAL
    offset: float = 0.1
    kappa: float = 0.27
    lam: float = 0.022
    channels: int = 1
    symmetry: str = "none"
    penalty: float = 0.0
    gradient: Literal["total", "path"] = "total"
    forward: float = 0.0
    hmc: bool = False
    hmc_moves: int = 10
    hmc_leaps: int = 10
    hmc_step: float = 0.2


@dataclass(frozen=True)
class SampleFlags:
    """Draws images from a model and writes them as a PNG grid.

    Arguments:
        model: model file, or name of a shipped model.
        out: the PNG file.
        n: images.
        temperature: one number, or one per level, lowest first, such as 0.2,0.6,0.6,0.6 (appendix B of the paper).
        seed: of the samples.
        columns: images in a row of the grid; None: about the square root of n.
        scale: edge of an image pixel in pixels of the PNG.
        npy: also write the images, uint8 (n, H, W, C), beside the PNG with the ending .npy.
        accelerator: where to compute.
    """

    model: str
    out: str
    n: int = 64
    temperature: str = "1"
    seed: int = 0
    columns: int | None = None
    scale: int = 2
    npy: bool = False
    accelerator: Literal["cpu", "gpu"] = "cpu"


@dataclass(frozen=True)
class EvaluateFlags:
    """Prints the bits/dim of a model on a test set, with the standard error over images.

    Arguments:
        model: model file, or name of a shipped model.
        split: test or train.
        n: images, spread evenly over the set; 0: all.
        batch_size: images at a time.
        seed: of the dequantisation noise.
        accelerator: where to compute.
        data_seed: chooses the test set where the data come without one, and the pictures of msds1 and msds2; None:
            that of the model's card, else 0.
    """

    model: str
    split: Literal["test", "train"] = "test"
    n: int = 0
    batch_size: int = 64
    seed: int = 0
    accelerator: Literal["cpu", "gpu"] = "cpu"
    data_seed: int | None = None


@dataclass(frozen=True)
class PreviewFlags:
    """Writes images of a set as a PNG grid.

    Arguments:
        out: the PNG file.
        split: train or test.
        n: images, spread evenly over the set.
        scale: edge of an image pixel in pixels of the PNG.
    """

    out: str
    split: Literal["train", "test"] = "train"
    n: int = 64
    scale: int = 2


@dataclass(frozen=True)
class InfoFlags:
    """Prints what a model file says about itself.

    Arguments:
        file: model file, or name of a shipped model.
    """

    file: str


@dataclass(frozen=True)
class ConvertFlags:
    """Turns a `.state` file of the original program into a model file.

    Arguments:
        state: the `.state` file.
        config: JSON file of the settings it was trained with, by the original's names (nchannels, L, nlayers, ...).
        out: the model file.
    """

    state: str
    config: str
    out: str


@dataclass(frozen=True)
class InpaintFlags:
    """Fills a hole in a picture; all other pixels stay as they are.

    Arguments:
        model: model file, or name of a shipped model.
        image: the picture. One of another size than the model's images is cut and made smaller as those were.
        out: the PNG file; with n above 1 a grid.
        box: the hole as top,left,height,width in pixels of the model's images.
        mask: or a picture, of the size of the other, whose bright pixels are the hole.
        method: latent: the paper's, the best of 200 draws of the latents that see the hole, then uphill along them;
            pixel: uphill along the pixels, from patches of the picture; sample: samples of what may be there.
        n: fills.
        scale: edge of an image pixel in pixels of the PNG.
        seed: of draws and samples.
        accelerator: where to compute.
    """

    model: str
    image: str
    out: str
    box: str | None = None
    mask: str | None = None
    method: Literal["latent", "pixel", "sample"] = "latent"
    n: int = 1
    scale: int = 1
    seed: int = 0
    accelerator: Literal["cpu", "gpu"] = "cpu"
