"""A recipe: everything that fixes a training run but the flow and its data."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

SMALL = {"nlayers": (4, 3, 2, 2), "nhidden": 96}
PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "authors": {"weight_decay": 5e-2, "order": "authors", "stream": "full"},
    "small": {**SMALL, "nres": 1},
    "fast": {
        **SMALL,
        "net": "plain",
        "tied": False,
        "coupling": "spline",
        "linear": "whitened",
        "batch_size": 8,
        "lr": 4e-3,
        "disentangler_lr_factor": 0.25,
        "schedule": "cosine",
        "warmup_steps": 100,
        "ema": 0.999,
    },
}  # what differs from the defaults of TrainConfig and RGFlowConfig; lists are of one number per level, lowest first
SCHEDULES = ("constant", "cosine")
CLOCKS = ("wall", "processor")
PRECISIONS = ("32", "64", "bf16-mixed")
ACCELERATORS = ("cpu", "gpu", "auto")
INTEGERS = {
    "batch_size": 1,
    "num_nodes": 1,
    "steps": 1,
    "epochs": 1,
    "seed": 0,
    "warmup_steps": 0,
    "fit_images": 1,
    "workers": 0,
    "print_step": 0,
    "eval_epoch": 0,
    "eval_images": 0,
    "save_epoch": 0,
    "keep_epoch": 0,
    "plot_epoch": 0,
}  # the least that is allowed
NUMBERS = {
    "lr": True,
    "disentangler_lr_factor": True,
    "minutes": True,
    "weight_decay": False,
    "clip_grad": False,
    "ema": False,
    "eval_minutes": False,
    "save_minutes": False,
}  # whether it must be above 0; else 0 is allowed
MOST = 2**63 - 1  # what a seed of torch and a counter of Lightning can hold
FIXED = (
    "lr",
    "weight_decay",
    "clip_grad",
    "batch_size",
    "seed",
    "schedule",
    "warmup_steps",
    "ema",
    "fit_images",
    "disentangler_lr_factor",
    "dtype",
    "precision",
    "clock",
)  # must be the same when a run goes on


@dataclass(frozen=True)
class TrainConfig:
    """How a flow is trained; each field is a flag of `rgflow train`.

    The loss is the mean code length of a batch in nats per dimension (bits per dimension times ln 2, what the original
    program uses too), and `clip_grad` acts on its gradient; reports are in bits per dimension. The run ends at the
    first of the budgets `steps`, `epochs`, `minutes`; 500 epochs, as in the original program, when none is given.

    Arguments:
        lr: learning rate of AdamW.
        weight_decay: of AdamW, decoupled (the original program's is 5e-2, see --preset).
        clip_grad: largest global norm of the gradient of the loss in nats per dimension; 0: no clipping.
        batch_size: images per step, over all devices together.
        seed: of the initial weights, the order of the images, the noise and the flips.
        steps: budget in training steps; None: no limit.
        epochs: budget in passes over the training set; None: no limit, or 500 without any budget.
        minutes: budget in minutes of training, evaluations included, over all restarts; None: no limit.
        clock: what `minutes` are of: "wall", or "processor", the processor time of this process over its threads, which
            other work on the machine does not shorten; for comparisons on a busy machine, on the CPU.
        schedule: "constant", or "cosine" from lr down to 0 over the budget (whichever is nearest to its end).
        disentangler_lr_factor: the learning rate of the disentanglers is this many times lr. What follows them, such
            as the maps of linear="whitened", may stretch some directions fifty times.
        warmup_steps: steps in which the learning rate rises from 0; 0: none.
        ema: decay per step of the running average of the weights, which is then what is scored, shown and kept, such
            as 0.999 (it rises to that as (1 + k) / (10 + k) in step k); 0: none.
        fit_images: training images to which linear="whitened" is fitted before the first step.
        dtype: of the weights, "float32" or "float64".
        precision: of the arithmetic, "32", "64" (implies float64) or "bf16-mixed"; None: that of dtype.
        accelerator: "cpu", "gpu" or "auto".
        devices: how many processes or GPUs on each node; or GPU numbers such as 0,1 (and 3, for GPU 3 alone); or
            "auto".
        num_nodes: machines.
        strategy: of pytorch-lightning, such as "ddp"; "auto": ddp for several devices.
        compile: let torch.compile make faster kernels for the step, which takes a minute or so at the start.
        workers: processes that read images; 0: the training process itself.
        print_step: steps between two rows of the log and of the progress bar; 0: none but those of evaluations.
        eval_epoch: epochs between two evaluations on the test set; 0: only at the end.
        eval_minutes: minutes of training between two further evaluations; 0: none.
        eval_images: test images in an evaluation, spread evenly over the set; 0: all.
        save_epoch: epochs between two checkpoints; 0: none.
        save_minutes: a checkpoint also after so many minutes, so that a kill loses little; 0: none.
        keep_epoch: checkpoints of every so many epochs are kept, besides the best and the last; 0: none.
        plot_epoch: epochs between two pictures of samples; 0: none.
        quiet: no progress bar and no messages.
        name: of the run, a folder inside out_dir.
        out_dir: folder of the run; empty: nothing is written.

    Raises:
        ValueError: a value that is not allowed, with those that are.
    """

    lr: float = 1e-3
    weight_decay: float = 5e-5
    clip_grad: float = 1.0
    batch_size: int = 64
    seed: int = 0
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    clock: str = "wall"
    schedule: str = "constant"
    warmup_steps: int = 0
    disentangler_lr_factor: float = 1.0
    ema: float = 0.0
    fit_images: int = 2000
    dtype: str = "float32"
    precision: str | None = None
    accelerator: str = "cpu"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    compile: bool = False
    workers: int = 0
    print_step: int = 10
    eval_epoch: int = 1
    eval_minutes: float = 0.0
    eval_images: int = 2000
    save_epoch: int = 1
    save_minutes: float = 5.0
    keep_epoch: int = 10
    plot_epoch: int = 1
    quiet: bool = False
    name: str = ""
    out_dir: str = "runs/last"

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None and self.minutes is None:
            object.__setattr__(self, "epochs", 500)
        for name, least in INTEGERS.items():
            value = getattr(self, name)
            if value is not None or name not in ("steps", "epochs"):
                object.__setattr__(self, name, _integer(name, value, least))
        for name, positive in NUMBERS.items():
            value = getattr(self, name)
            if value is not None or name != "minutes":
                object.__setattr__(self, name, _number(name, value, positive))
        if self.ema >= 1:
            raise ValueError(f"ema must be below 1, not {self.ema}")
        allowed = {
            "schedule": SCHEDULES,
            "clock": CLOCKS,
            "dtype": ("float32", "float64"),
            "precision": (None, *PRECISIONS),
            "accelerator": ACCELERATORS,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                names = ", ".join(str(v) for v in values)
                raise ValueError(f"{name} must be one of {names}, not {getattr(self, name)!r}")
        if self.precision == "64":
            object.__setattr__(self, "dtype", "float64")
        elif self.precision is not None and self.dtype == "float64":
            raise ValueError(f"precision {self.precision} does not go with dtype float64; use 64")
        object.__setattr__(self, "precision", self.precision or ("64" if self.dtype == "float64" else "32"))
        _ = self.device_list

    @property
    def device_list(self) -> int | list[int] | str:
        """`devices` as pytorch-lightning takes it: a number, a list of GPU numbers, or "auto".

        Raises:
            ValueError: no device, or text that is neither.
        """
        text = str(self.devices).strip()
        if text == "auto":
            return text
        parts = text.removesuffix(",").split(",")
        if not all(part.strip().isdecimal() for part in parts):
            raise ValueError(f"devices must be a number, GPU numbers such as 0,1 or 3, or auto, not {self.devices!r}")
        given = [int(part) for part in parts]
        if "," in text:
            if len(set(given)) < len(given) or self.accelerator == "cpu":
                raise ValueError(f"devices {text} must be different GPUs (--accelerator gpu); on the cpu give a number")
            return given
        if given[0] < 1:
            raise ValueError(f"devices must be at least 1, not {given[0]}")
        return given[0]

    @property
    def folder(self) -> Path | None:
        """Folder of the run; None when nothing is to be written."""
        return Path(self.out_dir).expanduser() / self.name if self.out_dir else None

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """The step at which the run ends by `steps` and `epochs`; None: only `minutes` limits it."""
        limits = [self.steps, self.epochs and self.epochs * steps_per_epoch]
        return min((limit for limit in limits if limit is not None), default=None)

    def progress(self, step: int, seconds: float, steps_per_epoch: int) -> float:
        """The fraction of the budget used up, 0 to 1: that of the budget nearest to its end.

        Arguments:
            step: training steps done.
            seconds: of training, over all restarts.
        """
        total = self.total_steps(steps_per_epoch)
        used = [step / total if total else 0.0, seconds / (60 * self.minutes) if self.minutes else 0.0]
        return min(1.0, max(used))

    def learning_rate(self, step: int, progress: float) -> float:
        r"""The learning rate of step k (from 0) when the fraction p of the budget is used.

        .. math:: \text{lr} \cdot \min(1, (k + 1) / \text{warmup}) \cdot \tfrac12 (1 + \cos \pi p),

        the last factor for "cosine" only.
        """
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0
        return self.lr * warm * fall


def divided(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of a preset, those of the model (`RGFlowConfig`) and those of training (`TrainConfig`)."""
    training = {field.name for field in fields(TrainConfig)}
    of_model, of_training = ({k: v for k, v in settings.items() if (k in training) == x} for x in (False, True))
    return of_model, of_training


def levels_of(numbers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """One number per level, lowest first, for another count of levels: cut, or the last one repeated.

    So (4, 3, 2, 2), which is meant for 32 x 32 pixels, is (4, 3) at 8 x 8 and (4, 3, 2, 2, 2) at 64 x 64.
    """
    return (numbers + numbers[-1:] * count)[:count]


def _integer(name: str, value: object, least: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # takes numpy's integers too
    except TypeError:
        number = None
    if number is None:
        raise ValueError(f"{name} must be an integer, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be {'above 0' if least else 'at least 0'}, not {number}")
    if number > MOST:
        raise ValueError(f"{name} must be below 2^63, not {number}")
    return number


def _number(name: str, value: object, positive: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be {'above 0' if positive else 'at least 0'}, not {value}")
    return float(value)
