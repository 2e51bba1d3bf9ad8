"""Flows with a symmetry that is exact: averaged over a finite group; and the penalty of one that is not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rgflow.flow import Flow

Element = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


def _rows(x: Tensor) -> Tensor:
    return x.flip(-2)


def _columns(x: Tensor) -> Tensor:
    return x.flip(-1)


def _diagonal(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


GENERATORS: dict[str, tuple[Element, ...]] = {
    "flip": (torch.neg,),
    "reflections": (_rows, _columns),
    "square": (_rows, _columns, _diagonal),
}  # each with the identity; a group is made of all products, one from each
TRANSLATIONS = "translations"
FIELDS = 4096  # of one pass through the flow, when an average needs many


def parts(name: str) -> list[str]:
    """The names that a group's name is made of.

    Raises:
        ValueError: an unknown or repeated name.
    """
    found = [] if name == "none" else name.split("+")
    known = [*GENERATORS, TRANSLATIONS]
    if len(set(found)) < len(found) or not set(found) <= set(known) or {"reflections", "square"} <= set(found):
        raise ValueError(
            f"symmetry must be none, or some of {', '.join(known)} with + between them (reflections are part of "
            f"square), not {name!r}"
        )
    return found


def group(name: str, lattice: tuple[int, ...]) -> list[Element]:
    r"""The elements of a finite group of fields (B, C, H, W), the identity first; none changes volumes.

    Arguments:
        name: "none" (1 element); "flip", :math:`x \to -x` (2); "reflections" of the lattice in rows and columns (4);
            "square", these and the quarter turns (8, for H = W); "translations" of the torus (H W); or several with +
            between them, such as "flip+square" (16), for all products.
        lattice: (H, W); of another number of edges only "none" and "flip" are groups.

    Raises:
        ValueError: an unknown or repeated name, one that the lattice does not have, or quarter turns of one that is not
            square.
    """
    names = parts(name)
    if len(lattice) != 2 and set(names) - {"flip"}:
        raise ValueError(f"symmetry {name} needs a lattice of rows and columns, not {tuple(lattice)}")
    if "square" in names and lattice[0] != lattice[1]:
        raise ValueError(f"symmetry square needs a lattice as high as wide, not {tuple(lattice)}")
    factors = [(_identity, element) for part in names if part in GENERATORS for element in GENERATORS[part]]
    if TRANSLATIONS in names:
        factors.append([_translation(rows, columns) for rows in range(lattice[0]) for columns in range(lattice[1])])
    return [_product(chosen) for chosen in itertools.product(*factors)]


def _translation(rows: int, columns: int) -> Element:
    return lambda x: x.roll((rows, columns), (-2, -1))


def _product(elements: tuple[Element, ...]) -> Element:
    def apply(x: Tensor) -> Tensor:
        for element in elements:
            x = element(x)
        return x

    return apply


def _densities(flow: Flow, images: list[Tensor]) -> Tensor:
    """Log density of each image (B, C, H, W) of a batch; (len(images), B)."""
    stacked = torch.cat(images)
    return torch.cat([flow.log_prob(part) for part in stacked.split(FIELDS)]).view(len(images), -1)


class Symmetrised(nn.Module):
    r"""A flow averaged over a finite group of volume-preserving maps: a density with that very symmetry.

    .. math:: q_G(x) = \frac{1}{|G|} \sum_{g \in G} q(g x)

    A draw is one of q, moved by an element drawn at random. The density costs as many passes as G has elements (one
    less for a draw). It is a mixture, not a flow: it has no encoder. Where p has the symmetry, KL(q_G | p) is at most
    KL(q | p), by the convexity of x log x: a trained flow may be averaged over more than it was trained with.

    Arguments:
        flow: q; its parameters are the only ones.
        symmetry: name of the group, see `group`.

    Raises:
        ValueError: an unknown group, or one with quarter turns for a lattice that is not square.

    Source: the original NeuralRG program, `Symmetrized` (Li & Wang 2018, arXiv:1802.02840, which has x -> -x).
    """

    def __init__(self, flow: Flow, symmetry: str = "flip") -> None:
        super().__init__()
        self.flow, self.symmetry, self.group = flow, symmetry, group(symmetry, flow.shape[1:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a field."""
        return self.flow.shape

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of fields (B, C, H, W); (B,), nats."""
        return self._mean(_densities(self.flow, [element(x) for element in self.group]))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws n fields (n, C, H, W)."""
        x = self.flow.sample(n, generator=generator)
        return self._moved([element(x) for element in self.group], generator)

    def sample_and_log_prob(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws n fields and gives their log density (n,), nats; both with gradients."""
        x, log_q = self.flow.sample_and_log_prob(n, generator=generator)
        images = [element(x) for element in self.group]
        terms = log_q[None]
        if len(images) > 1:
            terms = torch.cat([terms, _densities(self.flow, images[1:])])
        return self._moved(images, generator), self._mean(terms)

    @torch.no_grad()
    def representative(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""The image of each field x that the flow itself may have drawn: g x, with g from its posterior.

        .. math:: P(g \mid x) = \frac{q(g x)}{\sum_h q(h x)}

        If x has the density q_G the image has the density q: encoded by the flow it has the prior's distribution.

        Shapes: x and the images (B, C, H, W).
        """
        images = [element(x) for element in self.group]
        log_q = _densities(self.flow, images)
        chosen = torch.multinomial(log_q.softmax(0).T, 1, generator=generator)[:, 0]
        return torch.stack(images)[chosen, torch.arange(len(x), device=x.device)]

    def _mean(self, terms: Tensor) -> Tensor:
        return terms.logsumexp(0) - math.log(len(self.group))

    def _moved(self, images: list[Tensor], generator: torch.Generator | None) -> Tensor:
        if len(images) == 1:
            return images[0]
        n, device = len(images[0]), images[0].device
        chosen = torch.randint(len(images), (n,), generator=generator, device=device)
        return torch.stack(images)[chosen, torch.arange(n, device=device)]


def asymmetry(flow: Flow, x: Tensor, log_q: Tensor, symmetry: str = "flip") -> Tensor:
    r"""How much more likely draws of a flow are than their images, averaged over the other elements of the group.

    .. math:: a(x) = \frac{1}{|G| - 1} \sum_{g \ne 1} \bigl( \log q(x) - \log q(g x) \bigr)

    For draws of q the mean is an average of KL(q | q g), so at least 0, and 0 for a symmetric q: times a weight it is
    the original program's penalty in place of the exact symmetry.

    Shapes: x (B, C, H, W), log_q (B,) the log density of x -> (B,), nats.

    Raises:
        ValueError: an unknown group, or one with the identity alone.

    Source: the original NeuralRG program, `alpha` of its training.
    """
    others = group(symmetry, flow.shape[1:])[1:]
    if not others:
        raise ValueError("a penalty needs a symmetry that is not none")
    return log_q - _densities(flow, [element(x) for element in others]).mean(0)
