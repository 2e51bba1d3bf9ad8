"""The rules of `ledger.toml` as code: one function per claim, from the numbers of its chapter to a verdict.

What a rule means stands in `ledger.toml`; here it is written so that a machine can apply it. `n["name"]` is a number of
results/<chapter>.json with its interval (value, low, high), `n.exact("name")` one that has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from rgflow import checkpoints, ovals, purity
from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNDECIDABLE, Numbers, Verdict, graded

PICTURES = ("msds1", "patches32")  # a generated set, and photographs
OVALS = {name: (ovals.GLOBAL[name], ovals.LOCAL[name]) for name in ovals.GLOBAL}
SEEDS = (0, 1, 2)


def bijective(n: Numbers) -> Verdict:
    """Rule C1: an exact bijection with a tractable likelihood."""
    flows = [name for name in checkpoints.shipped() if name.split("-")[0] in ("msds1", "msds2", "patches32")]
    errors = [n.exact(f"{name}: round trip, float64") for name in flows]
    parts = {
        "(a) round trip": max(errors) <= 1e-9,
        "(b) log-determinants": n.exact("log-determinant less that of the Jacobian, largest") <= 1e-9,
    }
    return graded(parts)


def inside_the_cones(n: Numbers) -> Verdict:
    """Rule C2: receptive fields lie in generation cones."""
    return graded({"nothing outside": n.exact("shipped flows: largest |dx/dz| outside the cones") == 0})


def logarithmic(n: Numbers) -> Verdict:
    """Rule C3: an inference cone grows as log L."""
    parts = {}
    for what in ("latents", "blocks"):
        counts = [n.exact(f"{what}, L = {2**k}") for k in range(5, 11)]
        parts[f"{what} grow evenly"] = len({after - before for before, after in pairwise(counts)}) == 1
    parts["engine and cones agree"] = n.exact("cones: sites and blocks counted otherwise by the engine") == 0
    return graded(parts)


def fields_grow(n: Numbers) -> Verdict:
    """Rule C4: receptive fields grow with the level."""
    parts = {}
    for name in PICTURES:
        radii = [n[f"{name}: level {level}: median radius"] for level in range(4)]
        parts[f"(a) {name}"] = all(upper.low > lower.high for lower, upper in pairwise(radii))
        parts[f"(b) {name}"] = radii[0].value <= 2
        parts[f"(c) {name}"] = radii[-1].value >= math.sqrt((32**2 - 1) / 6) / 2
    return graded(parts, partly=_on_all("(a)", parts))


def few_matter(n: Numbers) -> Verdict:
    """Rule C5: few latents are strong."""
    parts = {}
    for name in PICTURES:
        parts[f"(a) {name}"] = n[f"{name}: share of all strengths above one"].high < 0.5
        parts[f"(b) {name}"] = n[f"{name}: share of squared strength in the strongest tenth"].low > 0.5
    return graded(parts, partly=_on_all("(a)", parts) or _on_all("(b)", parts))


def levels_separate(n: Numbers) -> Verdict:
    """Rule C6: levels keep global and local factors apart."""
    parts = {}
    for name, (shared, free) in OVALS.items():
        studies = [f"study {name} laplace {seed}: donor" for seed in SEEDS]
        top = [n[f"{study} {shared}, swapped 3"] for study in studies]
        bottom = [n[f"{study} {shared}, swapped 0"] for study in studies]
        rest = [n[f"{study} {factor}, swapped below 3"] for study in studies for factor in free]
        nothing = all(-0.1 < weight.low and weight.high < 0.1 for weight in bottom)
        parts[f"(a) {name}"] = nothing and all(weight.low > 0.5 for weight in top)
        parts[f"(b) {name}"] = all(weight.low > 0.5 for weight in rest)
    return graded(parts, partly=any(parts[f"(a) {name}"] for name in OVALS))


def quadrants_to_legs(n: Numbers) -> Verdict:
    """Rule C7: the Laplace prior ties quadrants to legs."""
    rule, parts = purity.RULE, {}
    for test in purity.TESTS:
        lengths = {prior: n[f"R {test} {prior}"] for prior in ("laplace", "gaussian")}
        ps = {prior: n.exact(f"rayleigh p {test} {prior}") for prior in lengths}
        learned = max(n[f"kl {test} {prior}"].value for prior in lengths) <= rule.kl
        parts[test] = (
            learned
            and lengths["laplace"].low > rule.resultant
            and ps["laplace"] < rule.fixed_p
            and lengths["gaussian"].value <= rule.resultant
            and ps["gaussian"] > rule.free_p
        )
    own, more = n["purity at 0 seeds laplace"], n["purity at 0, laplace less gaussian"]
    parts["quadrants at 0 degrees"] = own.low > rule.literal and more.low > 0
    return graded(parts, partly=any(parts[test] for test in purity.TESTS))


def sparse_prior_disentangles(n: Numbers) -> Verdict:
    """Rule C8: the sparse prior disentangles better than the Gaussian."""
    more = {
        f"{measure}, {name}": n[f"Laplace minus Gaussian: {measure}, {name}"]
        for name in OVALS
        for measure in ("MIG", "DCI disentanglement")
    }
    parts = {}
    for name in OVALS:
        own = [difference for what, difference in more.items() if what.endswith(name)]
        parts[name] = any(d.low > 0 for d in own) and not any(d.high < 0 for d in own)
    if all(parts.values()) or any(d.low > 0 for d in more.values()):
        return graded(parts, partly=True)
    if any(d.high < 0 for d in more.values()) or all(d.high < 0.05 for d in more.values()):
        return Verdict(NOT, parts)
    return Verdict(UNDECIDABLE, parts, "three seeds tell the priors apart in none of the four comparisons, and do not "
                   "exclude a difference of 0.05 either")  # fmt: skip


def mixing_by_levels(n: Numbers) -> Verdict:
    """Rule C9: a mixture has the large scale of A and the details of B."""
    studies = [f"study msds1 laplace {seed}:" for seed in SEEDS]
    shared, free = OVALS["msds1"]
    details = [n[f"{study} B {factor}, cut 3"] for study in studies for factor in free]
    parts = {
        "(a) colour of A": all([n[f"{study} A {shared}, cut 3"].low > 0.5 for study in studies]),
        "(b) details of B": all(weight.low > 0.5 for weight in details),
        "(c) more than interpolation": all([n[f"{study} excess separation, cut 3"].low > 0.3 for study in studies]),
    }
    return graded(parts, partly=parts["(a) colour of A"] and parts["(c) more than interpolation"])


def fills(n: Numbers) -> Verdict:
    """Rule C10: fills from the latents in the cone."""
    parts = {}
    for name in PICTURES:
        ours, paired = n[f"{name}, RG-Flow in its cone: PSNR"], n[f"{name}, RG-Flow less Real NVP constrained: PSNR"]
        parts[f"(a) {name}"] = ours.value >= n[f"{name}, biharmonic: PSNR"].value - 1
        parts[f"(b) {name}"] = paired.value >= 3 and paired.low > 0
        parts[f"(c) {name}"] = n[f"{name}, Real NVP: PSNR"].value >= ours.value - 3
    return graded(parts, partly=any(_on_all(part, parts) for part in ("(a)", "(b)", "(c)")))


def no_worse_than_real_nvp(n: Numbers) -> Verdict:
    """Rule C11: bits/dim below those of Real NVP."""
    names = ("msds1", "patches32", "faces")
    differences = {name: n[f"C11 {name}: RG-Flow less Real NVP"] for name in names}
    parts = {("(a) " if name == "msds1" else "(b) ") + name: d.high < 0 for name, d in differences.items()}
    worse = any(differences[name].low > 0.02 for name in names[1:])
    return graded(parts, partly=parts["(a) msds1"] and not worse)


def real_nvp_not_local(n: Numbers) -> Verdict:
    """Rule C12: Real NVP's latents reach out of the cones, and far."""
    parts = {}
    for name in PICTURES:
        outside = [n[f"{name}-realnvp: level {level}: effect outside the cone"] for level in (0, 1)]
        own, other = (n[f"{flow}: level 0: median spread"] for flow in (name, f"{name}-realnvp"))
        parts[f"(a) {name}"] = all(share.low > 0.05 for share in outside)
        parts[f"(b) {name}"] = other.low >= own.high * 2
    found = graded(parts, partly=_on_all("(a)", parts) or _on_all("(b)", parts))
    why = "Real NVP has no cones (chapter 07), but part (a) asks for more than 5 % of the effect outside"
    return found if all(holds for part, holds in parts.items() if "(a)" in part) else replace(found, why=why)


def mixed_temperatures(n: Numbers) -> Verdict:
    """Rule C13: samples at mixed temperatures are harder to tell from real images."""
    parts, saturated = {}, []
    for name in ("msds1", "faces"):
        accuracies = [n.exact(f"C13 {name}: accuracy, {scheme}") for scheme in ("mixed", "1", "0.6")]
        saturated += [name] if min(accuracies) > 0.99 else []
        for part, scheme in (("(a)", "1"), ("(b)", "0.6")):
            parts[f"{part} {name}"] = n[f"C13 {name}: mixed less {scheme}"].high < 0
    if saturated:
        why = f"every scheme is told from real images more than 99 times of 100 on {' and '.join(saturated)}"
        return Verdict(UNDECIDABLE, parts, why)
    return graded(parts, partly=parts["(a) msds1"] and parts["(a) faces"])


def checkpointing_saves(n: Numbers) -> Verdict:
    """Rule C14: checkpointing cuts memory."""
    share = n["C14: peak with checkpointing over peak without"]  # interval: the least and the most of the six cases
    parts = {
        "(a) a third in every case": share.high <= 1 / 3,
        "(b) same gradients": n.exact("C14: largest relative difference of gradients") <= 1e-5,
    }
    return graded(parts, partly=parts["(b) same gradients"] and share.low <= 1 / 3)


def scale_invariant(n: Numbers) -> Verdict:
    """Rule C15: shared weights are scale-invariant."""
    new, finite = n["shared: new latents, bits each"], n.exact("shared: pieces not finite") == 0
    parts = {
        "(a) one step more": n.exact("C15 a: largest difference from one more step") <= 1e-9,
        "(b) carries over": new.high < 0.5 and finite,
        "(c) by sharing": n["C15 c: better control less shared, bits for each new latent"].low > 0,
    }
    return graded(parts, partly=parts["(a) one step more"] and sum(parts.values()) > 1)


def deeper_is_better(n: Numbers) -> Verdict:
    """Rule C16: deeper is better."""
    parts, whole, unsure = {}, [], []
    for name in PICTURES:
        for shallow, deep in pairwise((1, 2, 4, 8)):
            parts[f"{shallow}-{deep} {name}"] = n[f"C16 {name}: {deep} layers less {shallow}"].high < 0
        most = n[f"C16 {name}: 8 layers less 1"]
        whole.append(most.high < 0)
        unsure.append(most.low < -0.05 and most.low <= 0 <= most.high)
    if any(unsure) and not all(whole):
        return Verdict(UNDECIDABLE, parts, "three seeds do not tell 8 layers from 1, nor rule out a gain of 0.05")
    return graded(parts, partly=all(whole))


def lowest_converges_last(n: Numbers) -> Verdict:
    """Rule C17: the lowest level converges last."""
    lags = {name: n[f"C17 {name}: lag of level 0, falling layers, 5 %"] for name in PICTURES}
    parts = {name: lag.low > 0 for name, lag in lags.items()}
    if all(lag.low <= 0 <= lag.high and lag.high > 1 for lag in lags.values()):
        return Verdict(UNDECIDABLE, parts, "three seeds scatter too much: lags may be none, or more than a doubling")
    return graded(parts, partly=any(parts.values()) and all(lag.value > 0 for lag in lags.values()))


def thirty_of_48(n: Numbers) -> Verdict:
    """Rule C18: 30 of 48 latents of the top level are visible."""
    share = n["faces: level 3: share of strengths above one"]
    covers = share.low <= 30 / 48 <= share.high
    word = REPRODUCED if covers else PARTLY if share.value >= 0.5 else NOT
    return Verdict(word, {"covers 30 of 48": covers, "at least half": share.value >= 0.5})


def _on_all(part: str, parts: dict[str, bool]) -> bool:
    """Whether a part holds on every set."""
    return all(parts[f"{part} {name}"] for name in PICTURES)


RULES: dict[str, Callable[[Numbers], Verdict]] = {
    "C1": bijective,
    "C2": inside_the_cones,
    "C3": logarithmic,
    "C4": fields_grow,
    "C5": few_matter,
    "C6": levels_separate,
    "C7": quadrants_to_legs,
    "C8": sparse_prior_disentangles,
    "C9": mixing_by_levels,
    "C10": fills,
    "C11": no_worse_than_real_nvp,
    "C12": real_nvp_not_local,
    "C13": mixed_temperatures,
    "C14": checkpointing_saves,
    "C15": scale_invariant,
    "C16": deeper_is_better,
    "C17": lowest_converges_last,
    "C18": thirty_of_48,
}
