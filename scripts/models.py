"""Lists the shipped models, from their cards, in README.md and book/models.md; --check only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rgflow import checkpoints
from rgflow.files import replacing

ROOT = Path(__file__).resolve().parent.parent
README, PAGE = ROOT / "README.md", ROOT / "book" / "models.md"
START, END = "<!-- models: scripts/models.py writes what follows -->", "<!-- end of models -->"
MODELS = {"RGFlowConfig": "RG-Flow", "RealNVPConfig": "Real NVP", "ODEFlowConfig": "ODE RG-Flow"}


def kind(content: dict[str, Any]) -> str:
    """What a model is, in a few words: of its file's description."""
    config = content["config"]
    words = [MODELS[content["model"]]]
    if content["model"] == "RGFlowConfig":
        words += [config["coupling"], "plain networks" if config["net"] == "plain" else "the paper's networks"]
        words += ["linear maps"] if config["linear"] else []
        words += ["places"] if config.get("places") else []
    return ", ".join([*words, f"{config['prior'].capitalize()} prior"])


def tables(contents: dict[str, dict[str, Any]]) -> str:
    """Of all models, those of images and those of energies by themselves."""
    energies = {name: content for name, content in contents.items() if "energy" in content["card"]}
    images = {name: content for name, content in contents.items() if name not in energies}
    return "\n\n".join(made for some, made in ((images, table(images)), (energies, of_energies(energies))) if some)


def of_energies(contents: dict[str, dict[str, Any]]) -> str:
    """A row for each model of an energy: how far its free energy is above the exact one, in nats per site."""
    lines = [
        "| name | energy | model | parameters | trained for | above exact, nats per site | ESS per draw |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, content in contents.items():
        card = content["card"]
        keys = {"ising": ("temperature",), "phi4": ("kappa", "lam")}[card["energy"]]
        what = f"{card['energy']}, {card['size']} x {card['size']}, " + ", ".join(f"{k} {card[k]:.5g}" for k in keys)
        gap, sites = "not known", card["size"] ** 2
        if "exact_log_z" in card:
            above, error = card["free_energy"] + card["exact_log_z"], card["free_energy_error"]
            gap = f"{above / sites:.4f} ± {error / sites:.4f}"
        lines.append(
            f"| `{name}` | {what}, symmetry {card['symmetry']} | {kind(content)} | {content['parameters']:,} | "
            f"{trained(card)} | {gap} | {card['ess']:.2f} |"
        )
    return "\n".join(lines)


def trained(card: dict[str, Any]) -> str:
    """How long, by which clock, and how many steps."""
    clock = " of processor time" if card.get("clock") == "processor" else ""
    return f"{card['seconds'] / 60:.0f} min{clock}, {card['steps']:,} steps"


def table(contents: dict[str, dict[str, Any]]) -> str:
    """A row for each model of images: its file's description by its name."""
    lines = [
        "| name | pictures | model | parameters | trained for | bits/dim, test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, content in contents.items():
        card = content["card"]
        score = f"{card['test_bits_per_dim']:.3f} ± {card['test_standard_error']:.3f} ({card['test_images']:,} images)"
        lines.append(
            f"| `{name}` | {pictures(card)} | {kind(content)} | {content['parameters']:,} | {trained(card)} | {score} |"
        )
    return "\n".join(lines)


def pictures(card: dict[str, Any]) -> str:
    """The set a model was trained on."""
    command = card["command"].split()
    if card["data"] != "images":
        return f"`{card['data']}`"
    return f"`{command[command.index('--data-path') + 1]}`" if "--data-path" in command else "own"


def section(name: str, content: dict[str, Any]) -> str:
    """What the card of one model says, for its page."""
    card = content["card"]
    rows = {
        "licence": card["licence"],
        "note": card.get("note", ""),
        "made": f"{card['date']}, seed {card['seed']}, on {card['hardware']}, torch {card['torch']}",
        "training images": f"{card['train_images']:,}" if "train_images" in card else "",
        "log": f"`rgflow/weights/{name}.csv`",
    }
    body = "\n".join(f"* {what}: {text}" for what, text in rows.items() if text)
    return f"## {name}\n\n{body}\n\n```sh\n{folded(card['command'])}\n```"


def folded(command: str) -> str:
    """A command over several lines, broken before flags, that a shell reads as one."""
    first, *rest = command.split(" --")
    rows = [first]
    for part in (f"--{words}" for words in rest):
        if len(rows[-1]) + len(part) < 84:
            rows[-1] += f" {part}"
        else:
            rows.append(f"    {part}")
    return " \\\n".join(rows)


def between(text: str, new: str) -> str:
    """The text with something new between its two marks.

    ValueError: it does not have both marks once.
    """
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"there must be the marks {START} and {END} once each")
    before, rest = text.split(START)
    return f"{before}{START}\n{new}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 when --check finds a list that is not that of the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a list is out of date")
    options = parser.parse_args(arguments)
    contents = {name: checkpoints.read_card(name) for name in checkpoints.shipped()}
    long = "\n\n".join([tables(contents), *(section(name, content) for name, content in contents.items())])
    stale = []
    for path, new in ((README, tables(contents)), (PAGE, long)):
        old = path.read_text(encoding="utf-8")
        wanted = between(old, new)
        if wanted == old:
            continue
        stale.append(path)
        if options.check:
            print(f"{path.name} does not list what is shipped; run scripts/models.py", file=sys.stderr)
        else:
            with replacing(path) as partial:
                partial.write_text(wanted, encoding="utf-8")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
