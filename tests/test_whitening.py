"""Fitted linear maps: what they do to the data, that the flow stays a local bijection, and what cannot be fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bijectors import assert_bijector, wake_up
from test_cones import connections, mask
from torch import Tensor
from torch.testing import assert_close

import rgflow
from rgflow import cones, pixels
from rgflow.flow import Flow, RealNVPConfig, RGFlowConfig, build
from rgflow.linears import PatchLinear
from rgflow.whitening import coarse_cells, linear_map, sparse_rotation, whiten

SMALL = RGFlowConfig(1, 8, nlayers=2, nhidden=8, net="plain", linear="whitened")
MASKED = replace(SMALL, net="residual", nres=1, nmlp=1, nhidden=16, coupling="autoregressive")
CASES = {
    "grey": SMALL,
    "colour": replace(SMALL, channels=3),
    "gaussian": replace(SMALL, prior="gaussian", channels=3),
    "one block": replace(SMALL, size=4, channels=3),
    "oblong": replace(SMALL, size=(8, 24)),
    "blocks of 2": replace(SMALL, block=2),
    "blocks of 2, authors": replace(SMALL, block=2, order="authors", channels=3),
    "blocks of 6, authors": replace(SMALL, size=12, block=6, order="authors"),
    "authors": replace(SMALL, order="authors"),
    "repeated": replace(SMALL, repeat=2),
    "residual": replace(SMALL, net="residual", nres=1, nmlp=1, tied=False, order="authors"),
    "autoregressive": MASKED,
    "autoregressive, blocks of 2, authors, colour": replace(MASKED, channels=3, block=2, order="authors"),
    "checkpoint": replace(SMALL, memory="checkpoint"),
}


def smooth(flow: Flow | RGFlowConfig, n: int = 300, seed: int = 0) -> Tensor:
    """Images with structure on all scales: random colour, gradient and texture; uint8."""
    channels, (height, width) = flow.channels, flow.size
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(n, channels, height, width)
    for edge in (1, 2, 4, 8, 16):
        noise = torch.randn(n, channels, edge, edge, generator=generator)
        noise = noise + noise.mean(1, keepdim=True)  # channels go together
        total = total + F.interpolate(noise, size=(height, width), mode="bicubic") * edge**-0.8
    return (128 + 35 * total).clamp(0, 255).to(torch.uint8)


def logit(images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return pixels.to_logit(images, generator=torch.Generator().manual_seed(1), dtype=dtype)[0]


def fitted(config: RGFlowConfig, images: Tensor | None = None, dtype: torch.dtype | None = None) -> Flow:
    flow = build(config, torch.Generator().manual_seed(0)).to(dtype)
    whiten(flow, logit(smooth(config) if images is None else images, dtype))
    return flow


def maps(flow: Flow) -> list[PatchLinear]:
    return [module for module in flow.modules() if isinstance(module, PatchLinear)]


@pytest.mark.parametrize("case", CASES)
def test_fitted_flows_are_bijectors(double, case: str) -> None:
    flow = wake_up(fitted(CASES[case], dtype=torch.float64), std=0.1)
    x = logit(smooth(CASES[case], 1, seed=7), torch.float64)
    assert_bijector(flow.bijector, x)


@pytest.mark.parametrize("case", CASES)
def test_a_flow_before_the_fit_is_the_identity(case: str) -> None:
    flow = build(CASES[case])
    x = torch.randn(2, *flow.shape)
    z, ladj = flow.encode(x)
    assert_close(z, x, rtol=0, atol=1e-6)
    assert ladj.abs().max() < 1e-6
    steps, repeat = CASES[case].geometry.depth + 1, CASES[case].repeat
    assert len(maps(flow)) == steps * repeat, "one map per decimator, none for disentanglers"


WIDE = {
    "16, blocks of 2": replace(SMALL, size=16, block=2, nlayers=3),
    "16, blocks of 2, authors": replace(SMALL, size=16, block=2, nlayers=3, order="authors"),
    "16": replace(SMALL, size=16, nlayers=3),
    "colour, oblong, blocks of 2": replace(SMALL, size=(8, 16), block=2, nlayers=3, channels=3),
    "repeated, blocks of 2": replace(SMALL, size=16, block=2, nlayers=3, repeat=2),
    "autoregressive, blocks of 2": replace(MASKED, block=2, nlayers=3),
}


@pytest.mark.parametrize("case", WIDE)
def test_cones_are_those_of_the_blocks(case: str) -> None:
    """Nothing leaks out of the cones and nothing in them is out of reach, as in tests/test_cones.py."""
    flow = wake_up(fitted(WIDE[case], dtype=torch.float64), std=0.1)
    geometry, (_, height, width) = flow.geometry, flow.shape
    value = logit(smooth(WIDE[case], 1, seed=3), torch.float64)[0]
    chosen = [0, 1, *torch.randperm(height * width, generator=torch.Generator().manual_seed(0))[:6].tolist()]
    grid = [(i, j) for i in range(height) for j in range(width)]
    generated = [cones.generation_cone(geometry, site).flatten() for site in grid]
    inferred = [cones.inference_cone(geometry, mask(geometry, {site})).flatten() for site in grid]
    for function, expected in ((flow.decode, generated), (flow.encode, inferred)):
        some, _ = connections(function, value, chosen)
        assert torch.equal(some, torch.stack(expected, dim=1)[chosen])


@pytest.mark.parametrize("case", CASES)
def test_details_are_decorrelated_and_in_units_of_the_prior(case: str) -> None:
    """Level by level on the data of the fit: fresh couplings change nothing, so z are the fitted details."""
    config = CASES[case]
    flow, x = fitted(config), logit(smooth(config))
    z = flow.encode(x)[0]
    for level, step in enumerate(flow.bijector.steps):
        decimator, stride = step.decimators[-1], 2**level
        values = decimator.cut(z[:, :, ::stride, ::stride])
        top = level == flow.geometry.depth
        coarse = torch.zeros(values.shape[1], dtype=torch.bool)
        if not top:
            coarse[coarse_cells(decimator).unique()] = True
        assert int(coarse.sum()) * 4 == (0 if top else len(coarse))
        details = values[:, ~coarse].double()
        assert details.mean(0).abs().max() < 1e-3
        if config.prior == "laplace":
            assert_close(details.abs().mean(0), torch.full_like(details[0], 0.5**0.5), rtol=0, atol=1e-3)
        else:
            assert_close(details.std(0), torch.ones_like(details[0]), rtol=0, atol=2e-3)
        correlations = torch.corrcoef(details.T) - torch.eye(details.shape[1], dtype=torch.float64)
        assert correlations.abs().max() < 1e-3


@pytest.mark.parametrize("case", CASES)
def test_coarse_sites_carry_the_averaged_image(case: str) -> None:
    """What the next level sees is the image averaged over cells of 2 x 2, up to one shift per channel and one scale."""
    config = CASES[case]
    flow, x = fitted(config), logit(smooth(config))
    for level in range(flow.geometry.depth):
        y = flow.bijector.steps[level](x)[0][:, :, ::2, ::2]
        shift = 1 if flow.bijector.steps[level].decimators[-1].shift % 2 else 0
        average = F.avg_pool2d(x.roll((shift, shift), (2, 3)), 2)  # the cell around the site (2 i, 2 j)
        slopes = []
        for channel in range(config.channels):
            a, b = average[:, channel].flatten().double(), y[:, channel].flatten().double()
            assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99
            slopes.append((b.std() / a.std()).item())
        assert max(slopes) < 1.02 * min(slopes), "one scale for all channels"
        assert 0.9 < y.var(dim=(0, 2, 3)).mean() < 1.1
        x = y


def test_coarse_cells_by_hand() -> None:
    def sites(config: RGFlowConfig, half: int = -1) -> dict[tuple[int, int], tuple[int, int]]:
        blocks = build(config).bijector.steps[0].blocks[half]
        place = [divmod(int(k), config.block) for k in blocks.order]
        return {place[k]: place[c] for k, c in enumerate(coarse_cells(blocks).tolist())}

    paper = sites(SMALL)  # 4 x 4, not shifted: the coarse site is the upper left of its cell
    assert paper[(0, 0)] == paper[(1, 1)] == (0, 0) and paper[(0, 1)] == (0, 0)
    assert paper[(2, 3)] == (2, 2) and paper[(3, 0)] == (2, 0)
    authors = sites(replace(SMALL, order="authors"))  # shifted by 2: the same
    assert authors == paper
    odd = sites(replace(SMALL, block=2, order="authors"))  # shifted by 1: lower right
    assert set(odd.values()) == {(1, 1)}
    assert sites(MASKED) == paper, "the layout of the features makes no difference"


@pytest.mark.parametrize("prior", ["laplace", "gaussian"])
def test_the_fit_is_worth_bits(prior: str) -> None:
    config = replace(SMALL, channels=3, size=16, prior=prior)
    flow, test = fitted(config, smooth(config, 400)), smooth(config, 50, seed=9)
    generator = torch.Generator().manual_seed(2)
    before = build(config).bits_per_dim(test, generator=generator).mean()
    after = flow.bits_per_dim(test, generator=generator).mean()
    assert after < before - 2.5


@pytest.mark.parametrize("edge", [4, 8])
def test_details_live_where_they_are_left(edge: int) -> None:
    """Each detail of white noise with a common colour is centred on its own site, with and without coarse sites."""
    flow = build(replace(SMALL, size=edge, prior="gaussian"))
    generator = torch.Generator().manual_seed(0)
    colour = torch.randn(2000, 1, 1, 1, generator=generator)
    whiten(flow, torch.randn(2000, *flow.shape, generator=generator) + colour)
    matrix, fine = maps(flow)[0].matrix, torch.ones(16, dtype=torch.bool)
    if edge == 8:
        fine[coarse_cells(flow.bijector.steps[0].decimators[0]).unique()] = False
    assert int(fine.sum()) == (16 if edge == 4 else 12)
    assert torch.equal(matrix.abs().argmax(1)[fine], torch.arange(16)[fine]) and (matrix.diagonal()[fine] > 0).all()


def test_block_spins_of_white_noise_have_size_one() -> None:
    """Their weights are 1/2, four of them: noise of some size in the image has the same size in its block spins."""
    decimator = build(SMALL).bijector.steps[0].decimators[0]
    noise = 0.3 * torch.randn(20000, 16, generator=torch.Generator().manual_seed(0))
    assert linear_map(noise, coarse_cells(decimator), 1e-3, sparse=False)[2] == pytest.approx(0.3, rel=0.01)


def test_sparse_rotation_finds_independent_components() -> None:
    generator = torch.Generator().manual_seed(0)
    signs = 2 * torch.randint(0, 2, (20000, 6), generator=generator) - 1
    sources = torch.empty(20000, 6).exponential_(generator=generator) * signs / 2**0.5
    turn = torch.linalg.qr(torch.eye(6) + 0.3 * torch.randn(6, 6, generator=generator)).Q
    rotation = sparse_rotation(sources @ turn.T)
    assert_close(rotation @ rotation.T, torch.eye(6), rtol=0, atol=1e-5)
    assert (rotation @ turn).abs().max(1).values.min() > 0.99
    still = sparse_rotation(torch.zeros(100, 6))
    assert torch.equal(still, torch.eye(6))


def test_sparse_details_are_likelier_than_plain_ones() -> None:
    """Images of edges under a Laplace prior: the rotation alone is worth bits."""
    generator = torch.Generator().manual_seed(0)
    shape = torch.rand(600, 1, 4, 4, generator=generator) < 0.15
    x = torch.where(shape, 3.0, -2.0) + 0.1 * torch.randn(600, 1, 4, 4, generator=generator)
    x = torch.cat([x, x.cumsum(3)]).reshape(1200, 16)
    nats = []
    for sparse in (True, False):
        matrix, centre, _ = linear_map(x, None, 0.01, sparse)
        z = (x.double() - centre) @ matrix.T
        z = z / (z.abs().mean(0) * 2**0.5)
        ladj = torch.linalg.slogdet(matrix / (((x.double() - centre) @ matrix.T).abs().mean(0) * 2**0.5)[:, None])[1]
        nats.append((-(2**0.5) * z.abs()).sum(1).mean() + ladj)
    assert nats[0] > nats[1] + 0.5


@pytest.mark.parametrize("case", ["grey", "autoregressive", "repeated"])
def test_saved_and_loaded_bit_by_bit(tmp_path, case: str) -> None:
    flow = fitted(CASES[case])
    rgflow.save(flow, tmp_path / "m.safetensors")
    back = rgflow.load(tmp_path / "m.safetensors")
    assert back.config == flow.config
    state = back.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in flow.state_dict().items())
    assert sum(name.endswith(("matrix", "centre")) for name in state) == 2 * len(maps(flow))
    x = logit(smooth(CASES[case], 3, seed=5))
    assert torch.equal(flow.log_prob(x), back.log_prob(x))
    assert (back.encode(x)[0] - x).abs().max() > 0.1
    double = rgflow.load(tmp_path / "m.safetensors", torch.float64)
    assert_close(double.decode(double.encode(x.double())[0])[0], x.double(), rtol=0, atol=1e-9)


def test_the_same_images_give_the_same_maps_and_no_draws() -> None:
    state = torch.random.get_rng_state()
    a, b = (fitted(SMALL, smooth(SMALL)).state_dict() for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state()), "fitting moved the global random generator"
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_images_are_left_alone_and_nothing_is_tracked() -> None:
    x = logit(smooth(SMALL)).requires_grad_()
    before = x.detach().clone()
    flow, tracked = build(SMALL), []
    maps(flow)[0].register_forward_hook(lambda *_: tracked.append(torch.is_grad_enabled()))
    whiten(flow, x)
    assert torch.equal(x, before) and tracked == [False]
    assert all(p.grad is None and p.requires_grad for p in flow.parameters())
    assert not any(buffer.requires_grad for buffer in flow.buffers())


def test_what_comes_before_a_decimator_is_taken_into_account() -> None:
    """With trained couplings the details are white at the map's own output, not where x enters the level."""
    config = replace(SMALL, prior="gaussian", size=16, block=2)  # more patches than are run at a time
    flow = wake_up(build(config), std=0.15)
    x = logit(smooth(config))
    whiten(flow, x)
    for step in flow.bijector.steps:
        disentangler, decimator = step.blocks
        linear = decimator.bijector.layers[0]
        assert not any(p.any() for p in linear.parameters()), "what was trained of the map was kept"
        with torch.no_grad():
            values = linear(decimator.cut(disentangler(x)[0]))[0]
            x = step(x)[0][:, :, ::2, ::2]
        assert values.mean(0).abs().max() < 1e-3
    covariance = torch.cov(values.T)  # of the top level: all are details
    assert_close(covariance, torch.eye(4), rtol=0, atol=5e-3)


def test_only_the_last_decimator_of_a_step_is_fitted() -> None:
    for step in fitted(CASES["repeated"]).bijector.steps:
        first, last = (blocks.bijector.layers[0] for blocks in step.decimators)
        assert torch.equal(first.matrix, torch.eye(16)) and not torch.equal(last.matrix, torch.eye(16))


DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "black": lambda images: 0 * images,
    "one colour": lambda images: images[:1, :, :1, :1].expand_as(images).contiguous(),
    "constant channels": lambda images: torch.cat([images[:, :1], 0 * images[:, 1:] + 200], 1),
    "flat images": lambda images: images[:, :, :1, :1].expand_as(images).contiguous(),
    "grey": lambda images: images[:, :1].expand_as(images).contiguous(),
    "binary": lambda images: (images > 128) * torch.tensor(255, dtype=torch.uint8),
    "one dot": lambda images: F.pad(images[:, :, :1, :1] % 2 * 255, (0, 7, 0, 7)),
}


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("prior", ["laplace", "gaussian"])
def test_degenerate_images_do_not_break_it(kind: str, noisy: bool, prior: str) -> None:
    config = replace(SMALL, channels=3, prior=prior)
    images = DEGENERATE[kind](smooth(config))
    x = logit(images) if noisy else pixels.to_logit(images, torch.full(images.shape, 0.5))[0]
    flow = build(config)
    whiten(flow, x)
    for linear in maps(flow):
        assert linear.matrix.isfinite().all() and linear.matrix.abs().max() < 1e4
        assert torch.linalg.cond(linear.matrix.double()) < 1e6
    x = logit(images[:5])
    z, ladj = flow.encode(x)
    assert z.isfinite().all() and ladj.isfinite().all()
    assert_close(flow.decode(z)[0], x, rtol=0, atol=1e-3)
    if noisy:
        generator = torch.Generator().manual_seed(3)
        fresh = build(config).bits_per_dim(images, generator=generator).mean()
        assert flow.bits_per_dim(images, generator=generator).mean() < fresh - 1


def test_dequantisation_noise_is_a_direction_like_any_other() -> None:
    """Flat images: all details are noise, the smaller in units of the lattice the coarser it is; all get size 1."""
    config = replace(SMALL, size=32, block=2, prior="gaussian")
    flow, x = build(config), logit(DEGENERATE["flat images"](smooth(config)))
    whiten(flow, x)
    z = flow.encode(x)[0]
    for level in range(flow.geometry.depth):
        assert_close(z[:, :, flow.levels == level].std(), torch.tensor(1.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("config", "least"),
    [(SMALL, 32), (replace(SMALL, channels=3), 96), (replace(SMALL, size=(8, 24)), 11), (replace(SMALL, block=2), 8)],
)
def test_too_few_images_name_the_least(config: RGFlowConfig, least: int) -> None:
    x = logit(smooth(config, least))
    whiten(build(config), x)
    with pytest.raises(ValueError, match=f"takes at least {least} images, not {least - 1}"):
        whiten(build(config), x[1:])


def test_wrong_input_raises() -> None:
    flow, x = build(SMALL), logit(smooth(SMALL))
    for wrong, text in (
        (x[:, :, :4], r"x must be \(n, 1, 8, 8\) of torch.float32, not \(300, 1, 4, 8\)"),
        (x[0], r"not \(1, 8, 8\)"),
        (x.double(), "not .* of torch.float64"),
        (x / 0, "not finite"),
        (torch.where(x == x.max(), torch.nan, x), "not finite"),
    ):
        with pytest.raises(ValueError, match=text):
            whiten(flow, wrong)
    assert all(torch.equal(linear.matrix, torch.eye(16)) for linear in maps(flow))
    for other in (replace(SMALL, linear=None), RealNVPConfig(channels=1, size=8, nhidden=4, nres=1)):
        with pytest.raises(ValueError, match='only a flow built with linear="whitened"'):
            whiten(build(other), x)


def test_config_of_linear_maps() -> None:
    with pytest.raises(ValueError, match="linear must be one of None, whitened, not 'white'"):
        replace(SMALL, linear="white")
    with pytest.raises(ValueError, match="linear must be None with share_levels"):
        replace(SMALL, share_levels=True)
    assert RGFlowConfig().linear is None
