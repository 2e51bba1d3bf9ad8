"""The badge says what the ledger says, asks nobody for anything, and can be read."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import badge  # noqa: E402

from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNMEASURED, WORDS  # noqa: E402

COUNTS = {REPRODUCED: 7, PARTLY: 4, NOT: 2, UNMEASURED: 5}


def test_the_committed_badge_is_that_of_the_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    assert badge.main(["--check"]) == 0, capsys.readouterr().err


def test_the_badge_shows_every_count_and_no_other_host() -> None:
    text = badge.svg(COUNTS)
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    shown = [t.text for t in root.iter(f"{space}text")]
    assert shown == ["ledger", "7 reproduced", "4 partly reproduced", "2 not reproduced", "5 not measured yet"]
    assert root.find(f"{space}title").text == badge.words(COUNTS)
    assert text.count("http") == 1, "the name space, and nothing to load"
    boxes = [(float(r.get("x")), float(r.get("width"))) for r in root.iter(f"{space}rect")]
    assert boxes[0][0] == 0 and sum(boxes[-1]) == pytest.approx(float(root.get("width")))
    assert all(a[0] + a[1] == pytest.approx(b[0]) for a, b in zip(boxes, boxes[1:]))


def contrast(colour: str) -> float:
    """Of white on a colour (WCAG 2.1)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_white_can_be_read_on_every_colour() -> None:
    assert contrast("#ffffff") == pytest.approx(1) and contrast("#000000") == pytest.approx(21)
    assert set(badge.COLOURS) == set(WORDS)
    assert all(contrast(colour) >= 4.5 for colour in [badge.LABEL, *badge.COLOURS.values()])


def test_the_line_is_replaced_and_nothing_else() -> None:
    text = f"# x\n\n{badge.START}\nold\n{badge.END}\n\nrest\n"
    new = badge.with_line(text, COUNTS)
    assert new.startswith("# x\n\n") and new.endswith(f"{badge.END}\n\nrest\n") and "old" not in new
    assert "![The ledger, 18 claims: 7 reproduced, 4 partly reproduced" in new
    assert badge.with_line(new, COUNTS) == new
    with pytest.raises(ValueError, match="must have the marks"):
        badge.with_line("# x\n", COUNTS)


def test_check_reports_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svg, readme = tmp_path / "book" / "ledger.svg", tmp_path / "README.md"
    svg.parent.mkdir()
    readme.write_text(f"{badge.START}\n{badge.END}\n")
    monkeypatch.setattr(badge, "ROOT", tmp_path)
    monkeypatch.setattr(badge, "SVG", svg)
    monkeypatch.setattr(badge, "README", readme)
    assert badge.main(["--check"]) == 1 and not svg.exists()
    assert badge.main([]) == 0 and "(book/ledger.svg)" in readme.read_text()
    assert badge.main(["--check"]) == 0
