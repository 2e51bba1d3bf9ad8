"""Takes a finished run into the package: python scripts/ship.py runs/msds1 msds1 --licence "generated data, MIT"

Writes rgflow/weights/NAME.safetensors, its card completed by the score on the whole test set (if it learned images) and
the licence, and the log of the run beside it as NAME.csv.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from rgflow import checkpoints, data
from rgflow.batches import evaluate
from rgflow.flags import without_folders

WEIGHTS = Path(__file__).resolve().parent.parent / "rgflow" / "weights"
LARGEST = 8 * 2**20  # bytes


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="name to load it by")
    parser.add_argument("--licence", required=True, help="of the data, hence of the weights")
    parser.add_argument("--note", default="", help="one more line for the card")
    parser.add_argument("--data-path", type=Path, help="where the set lies, as in rgflow train")
    parser.add_argument("--test-index", type=Path, help="file that names its test images, as in rgflow train")
    options = parser.parse_args()
    source = options.run / "model.safetensors"
    flow, card = checkpoints.load(source), checkpoints.read_card(source)["card"]
    if "energy" not in card:  # the score of one that learned an energy is on its card already: it needs no test set
        test = data.load(
            card["data"], "test", options.data_path, test_index=options.test_index, seed=card.get("data_seed", 0)
        )
        score = evaluate(flow, test, batch_size=250)
        card |= dict(zip(("test_bits_per_dim", "test_standard_error", "test_images"), score))
    card["command"] = shlex.join(without_folders(shlex.split(card["command"])))
    card |= {"licence": options.licence} | ({"note": options.note} if options.note else {})
    if source.stat().st_size > LARGEST:
        parser.error(f"{source} is larger than the {LARGEST >> 20} MiB a shipped model may have")
    WEIGHTS.mkdir(exist_ok=True)
    checkpoints.save(flow, WEIGHTS / f"{options.name}.safetensors", card)
    shutil.copyfile(options.run / "metrics.csv", WEIGHTS / f"{options.name}.csv")
    if "energy" in card:
        print(f"{options.name}: free energy {card['free_energy']:.4f}, standard error {card['free_energy_error']:.4f}")
    else:
        print(f"{options.name}: {score.mean:.4f} bits/dim, standard error {score.standard_error:.4f}, {score.n} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
