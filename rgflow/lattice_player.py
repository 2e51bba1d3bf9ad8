"""A small lattice to click beside a picture: precomputed, so that it works in a static page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

import numpy as np
import torch
from IPython.display import HTML
from PIL import Image
from torch import Tensor

# Each handler finds its own player, which keeps in its data attributes what was picked. One PNG holds all pictures, a
# row of tiles for each site; what is seen is a window on it.
_SHOW = (
    "const p=this.closest('.rgflow-lattice'),d=p.dataset,i=p.querySelector('input'),v=p.querySelector('.view');{pick}"
    "v.style.backgroundPosition=-(d.choice*(+i.max+1)+ +i.value)*{edge}+'px '+-d.site*{edge}+'px';"
    "p.querySelectorAll('button').forEach(b=>b.setAttribute('aria-pressed',"
    "b.dataset.site===d.site||b.dataset.choice===d.choice));"
    "const n=JSON.parse(d.names),t=n[0][d.site]+', '+n[1][d.choice]+', '+n[2][i.value];"
    "p.querySelector('output').textContent=t;v.setAttribute('aria-label',d.alt+': '+t)"
)
_STYLE = (
    ".rgflow-lattice button[aria-pressed=true]{outline:3px solid #D55E00;outline-offset:-1px;position:relative;"
    "font-weight:bold}"
)


def lattice_player(
    images: Tensor,
    sites: Sequence[str],
    colours: Sequence[str],
    choices: Sequence[str],
    values: Sequence[str],
    columns: int,
    alt: str,
    start: tuple[int, int, int] = (0, 0, 0),
    edge: int = 288,
) -> HTML:
    """A picture beside a lattice of buttons; it shows what was computed for a site, a choice and a value.

    Works in the built page, offline and without a kernel.

    Shapes: images uint8 (sites, choices, values, C, H, W), C = 1 or 3.

    Arguments:
        sites: a name for each, row by row; shown when it is picked.
        colours: of the sites' buttons, CSS.
        choices, values: names of the buttons below the lattice, and of the places of the slider.
        columns: sites in a row of the lattice.
        alt: what there is to see, for readers who do not see the pictures; the names are added to it.
        start: site, choice and value shown first.
        edge: of the picture on the page, pixels.

    Raises:
        ValueError: names or colours that do not fit the images, images of another kind, an empty alt, or a start
            outside.
    """
    counts = (len(sites), len(choices), len(values))
    fits = images.ndim == 6 and tuple(images.shape[:3]) == counts and images.shape[3] in (1, 3)
    if images.dtype != torch.uint8 or not fits or len(colours) != counts[0] or 0 in counts:
        raise ValueError(
            f"images must be uint8 (sites, choices, values, C, H, W) with names {counts} and a colour for each site, "
            f"not {images.dtype} {tuple(images.shape)} with {len(colours)} colours"
        )
    if not alt.strip():
        raise ValueError("alt is empty: say what the pictures show")
    if any(not 0 <= k < count for k, count in zip(start, counts, strict=True)):
        raise ValueError(f"start must be inside {counts}, not {start}")
    site, choice, value = start
    across = counts[1] * counts[2]
    names = html.escape(json.dumps([list(sites), list(choices), list(values)]))
    text = html.escape(f"{sites[site]}, {choices[choice]}, {values[value]}")

    def handler(pick: str = "") -> str:
        return html.escape(_SHOW.format(pick=pick, edge=edge))

    def button(kind: str, k: int, name: str, pressed: bool, style: str, shown: str = "") -> str:
        pick = handler(f"d.{kind}=this.dataset.{kind};")
        return (
            f'<button type="button" data-{kind}="{k}" title="{html.escape(name)}" aria-label="{html.escape(name)}" '
            f'aria-pressed="{str(pressed).lower()}" onclick="{pick}" style="{style}">{html.escape(shown)}</button>'
        )

    cell = "padding:0;border:1px solid white;width:26px;height:26px;background:"
    lattice = [button("site", k, name, k == site, cell + colours[k]) for k, name in enumerate(sites)]
    row = [button("choice", k, name, k == choice, "margin:0.4em 0.2em 0 0", name) for k, name in enumerate(choices)]
    view = (
        f'<div class="view" role="img" aria-label="{html.escape(alt)}: {text}" style="width:{edge}px;height:{edge}px;'
        f"background-image:url(data:image/png;base64,{_sheet(images)});image-rendering:pixelated;"
        f"background-size:{across * edge}px {counts[0] * edge}px;"
        f'background-position:{-(choice * counts[2] + value) * edge}px {-site * edge}px"></div>'
    )
    slider = (
        f'<input type="range" min="0" max="{counts[2] - 1}" value="{value}" step="1" aria-label="value" '
        f'oninput="{handler()}" style="width:{edge}px">'
    )
    return HTML(
        f'<div class="rgflow-lattice" data-site="{site}" data-choice="{choice}" data-names="{names}" '
        f'data-alt="{html.escape(alt)}" style="display:flex;flex-wrap:wrap;gap:1.2em;justify-content:center;'
        f'align-items:center"><style>{_STYLE}</style><div><div style="display:grid;'
        f'grid-template-columns:repeat({columns},26px)">{"".join(lattice)}</div>{"".join(row)}</div>'
        f"<div>{view}{slider}<br><output>{text}</output></div></div>"
    )


def _sheet(images: Tensor) -> str:
    """All pictures as one PNG, a row of tiles per site; base64."""
    tiles = images.flatten(1, 2).cpu().numpy()  # (sites, tiles, C, H, W)
    sheet = tiles.transpose(0, 3, 1, 4, 2).reshape(tiles.shape[0] * tiles.shape[3], -1, tiles.shape[2])
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)).save(
        buffer, "PNG", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode()
