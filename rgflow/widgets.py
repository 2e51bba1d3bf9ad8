"""Sliders over figures. What a static page shows needs no kernel, no network and no library."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence

import ipywidgets
import numpy as np
import torch
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

Frame = Figure | np.ndarray | torch.Tensor

# Each handler finds its own player, so players need neither names nor a script of their own.
_SHOW = (
    "const p=this.closest('.rgflow-player'),s=p.querySelector('input');{move}"
    "p.querySelectorAll('img').forEach((f,k)=>f.style.display=k==s.value?'block':'none');"
    "p.querySelectorAll('span').forEach((f,k)=>f.style.display=k==s.value?'inline':'none')"
)


# A button that runs through the pictures until it is pressed again; the timer is kept on the player.
_PLAY = (
    "const q=this.closest('.rgflow-player'),r=q.querySelector('input');"
    "if(q.timer){clearInterval(q.timer);q.timer=0;this.textContent='play'}"
    "else{q.timer=setInterval(()=>{r.value=+r.value<+r.max?+r.value+1:0;r.dispatchEvent(new Event('input'))},%d);"
    "this.textContent='pause'}"
)


def frames_player(
    frames: Sequence[Frame], labels: Sequence[str], alt: str, start: int = 0, dpi: int = 110, every: int = 0
) -> HTML:
    """A slider over precomputed pictures that works in the built page, offline and without a kernel.

    Arguments:
        frames: figures, or uint8 images (H, W, 3), (H, W) or, as tensors, (C, H, W).
        labels: one line per frame, shown beside the slider.
        alt: what there is to see, for readers who do not see the pictures; the label is added to it.
        start: the frame shown first.
        dpi: of figures; images are enlarged to at least 320 pixels without smoothing.
        every: milliseconds per frame of an animation, which a button starts and stops; none when 0.

    Raises:
        ValueError: no frames, another number of labels, an empty alt, a start outside, an image of another kind, or a
            negative time.
    """
    if not frames or len(frames) != len(labels):
        raise ValueError(f"a player needs a label for every frame, not {len(labels)} for {len(frames)} frames")
    if not alt.strip():
        raise ValueError("alt is empty: say what the pictures show")
    if not 0 <= start < len(frames):
        raise ValueError(f"start must be in 0..{len(frames) - 1}, not {start}")
    if every < 0:
        raise ValueError(f"every is a time in milliseconds, not {every}")
    pictures, texts = [], []
    for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        shown = html.escape(label)
        source = base64.b64encode(_png(frame, dpi)).decode()
        pictures.append(
            f'<img src="data:image/png;base64,{source}" alt="{html.escape(f"{alt}: {label}")}" '
            f'style="display:{"block" if k == start else "none"};max-width:100%;margin:0 auto;background:white">'
        )
        texts.append(f'<span style="display:{"inline" if k == start else "none"}">{shown}</span>')
    last = len(frames) - 1
    buttons = [
        f'<button type="button" aria-label="{name}" onclick="{_SHOW.format(move=move)}">{sign}</button>'
        for name, sign, move in (
            ("previous", "&#9664;", f"s.value=s.value>0?+s.value-1:{last};"),
            ("next", "&#9654;", f"s.value=s.value<{last}?+s.value+1:0;"),
        )
    ]
    if every:
        buttons[1] += f' <button type="button" onclick="{_PLAY % every}">play</button>'
    slider = (
        f'<input type="range" min="0" max="{last}" value="{start}" step="1" aria-label="{html.escape(alt)}" '
        f'oninput="{_SHOW.format(move="")}" style="width:45%;vertical-align:middle">'
    )
    return HTML(
        '<div class="rgflow-player" style="text-align:center">' + "".join(pictures) + '<div style="margin-top:0.4em">'
        + f"{buttons[0]} {slider} {buttons[1]} " + "".join(texts) + "</div></div>"
    )  # fmt: skip


def live(draw: Callable[..., Frame], controls: dict[str, ipywidgets.ValueWidget], dpi: int = 110) -> ipywidgets.VBox:
    """Controls over a picture that is drawn anew at each move, under a line that says that this needs a kernel.

    On a published page the controls move and the picture stays: put a `frames_player` beside it.

    Arguments:
        draw: takes the values of the controls by name and gives the picture, as in `frames_player`.
        controls: a slider or other control per argument of `draw`.
    """
    note = "<i>Live kernel only: run this notebook to use the controls. The player beside it works on any page.</i>"

    def drawn() -> bytes:
        return _png(draw(**{name: control.value for name, control in controls.items()}), dpi)

    def redraw(_: object) -> None:
        picture.value = drawn()

    # An image rather than an Output: an Output captured while a notebook is executed can leave the executor waiting.
    picture = ipywidgets.Image(value=drawn(), format="png", layout=ipywidgets.Layout(max_width="100%"))
    for control in controls.values():
        control.observe(redraw, names="value")
    return ipywidgets.VBox([ipywidgets.HTML(note), *controls.values(), picture])


def _png(frame: Frame, dpi: int) -> bytes:
    buffer = io.BytesIO()
    if isinstance(frame, Figure):
        frame.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()
    tensor = isinstance(frame, torch.Tensor)
    array = frame.detach().cpu().numpy() if tensor else np.asarray(frame)
    if tensor and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"a frame must be a figure or a uint8 image (H, W[, 3]), not {array.dtype} {array.shape}")
    picture = Image.fromarray(np.ascontiguousarray(array))
    factor = -(-320 // max(1, min(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
