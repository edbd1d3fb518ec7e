"""Boxes and warnings of one pair: which sentence of findings.yaml is true is decided here, by the numbers."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from opdlib.errors import named
from opdlib.results.flat import headline
from opdlib.tables import paper
from opdlib.tables.nulls import NUMBERS

Entry = Mapping[str, Any]
"""What a page holds of one pair, see `opdlib.report.content`."""
FINDINGS = ("sparsity", "layers", "rank", "subspace", "nulls")
HEADINGS = {"paper": "The paper says", "here": "We find", "control": "Under control", "sure": "How sure"}


@cache
def sentences() -> Mapping[str, Any]:
    """findings.yaml as it is."""
    content: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf8"))
    return content


def boxes(entry: Entry) -> list[dict[str, Any]]:
    """The box of each finding whose numbers were measured: title, page of the book, and a sentence for each heading."""
    found = []
    for name in FINDINGS:
        text, decided = sentences()[name], CASES[name](entry)
        if decided is None:
            continue
        here, control, values = decided
        repeats = entry["repeats"].get(name, ())
        sure = "repeats" if len(repeats) > 1 else "one run"
        if repeats:
            ends = {"first": min(repeats), "last": max(repeats)}
            values = {"seeds": len(repeats), **({"start": ends["first"], "end": ends["last"]} | ends), **values}
        chosen = text["paper"], text["here"][here], text["control"][control], text["sure"][sure]
        lines = [line.format(**values) for line in chosen]
        found.append(
            {"title": text["title"], "page": text["page"], "lines": [*zip(HEADINGS.values(), lines, strict=True)]}
        )
    return found


Case = tuple[str, str, dict[str, Any]] | None
"""Which sentence says what was found, which what is left under control, and what is filled in."""


def _rounding(entry: Entry, key: str) -> tuple[float | None, str]:
    """What rounding alone gives of a number, and what it makes of the observed one; empty where it was not asked."""
    null = headline(entry["summary"]).get(f"nulls.visibility.{key}")
    known = entry["summary"].get("explained", {}).get("visibility", {})
    return null, known.get("changed" if key == "exact_zero" else key, {}).get("verdict", "") if null is not None else ""


def _sparsity(entry: Entry) -> Case:
    share, (low, high) = entry["summary"]["exact_zero"], paper.span("sparsity.1e-05")
    null, control = _rounding(entry, "exact_zero")
    values = {"low": low, "high": high, "within": "1e-5", "share": share, "view": entry["view"], "null": null}
    return "one view", control, values


def _layers(entry: Entry) -> Case:
    blocks = entry["summary"]["blocks"]
    low, high = paper.span("blocks.mlp.energy_share")
    big = _largest(entry["summary"])
    if blocks[big]["energy_share"] is None:
        return "nothing", "nothing", {"low": low, "high": high}
    moved = {block: own["rel_norm"] for block, own in blocks.items() if own["rel_norm"] is not None}
    first = max(moved, key=lambda block: moved[block])
    layers = [layer["rel_norm"] for layer in entry["summary"]["layers"] if layer["rel_norm"] is not None]
    most = blocks[big]
    values = {"low": low, "high": high, "big": big.replace("_", " "), "energy": most["energy_share"]}
    values |= {"least": min(layers, default=math.nan), "largest": max(layers, default=math.nan)}
    values |= {"parameters": most["parameter_share"], "times": most["energy_share"] / most["parameter_share"]}
    values |= {"first": first.replace("_", " "), "furthest": moved[first], "own": most["rel_norm"] or math.nan}
    return "changed" if layers else "no layers", "first" if first == big else "other", values


def _rank(entry: Entry) -> Case:
    numbers, key = headline(entry["summary"]), "svd_energy.16"
    if key not in numbers:
        return None
    (low, high), (null, control) = paper.span(key), _rounding(entry, key)
    values = {"k": 16, "low": low, "high": high, "held": numbers[key], "view": entry["view"], "null": null}
    return "nothing" if numbers[key] is None else "one view", control, values


def _subspace(entry: Entry) -> Case:
    numbers, joint, low = headline(entry["summary"]), "projection.joint.0.1", "coverage.low.0.1"
    if low not in numbers:
        return None
    null, control = _rounding(entry, low)
    values = {"pin": paper.span(joint), "plow": paper.span(low), "null": null, "inside": numbers.get(joint)}
    values |= {"chance": numbers.get("projection_expected.joint.0.1"), "low": numbers[low]}
    here = "nothing" if numbers[low] is None else "low only" if numbers.get(joint) is None else "changed"
    return here, control, values


def _nulls(entry: Entry) -> Case:
    numbers, noise = headline(entry["summary"]), "nulls.visibility."
    known = entry["summary"].get("explained", {}).get("visibility", {})
    masks = {"low": "coverage.low.0.1", "principal": "coverage.principal.0.1"}
    asked = [key for key in NUMBERS if key in known]
    if not {"changed", *masks.values()} <= set(asked) or numbers.get(f"{noise}exact_zero") is None:
        return None
    values = {"changed": 1 - numbers["exact_zero"], "null_changed": 1 - numbers[f"{noise}exact_zero"]}
    for mask, key in masks.items():
        values |= {mask: numbers.get(key), f"null_{mask}": numbers.get(f"{noise}{key}")}
    count = sum(known[key]["verdict"] == "explained" for key in asked)
    return (
        "changed",
        "noise",
        values | {"count": count, "of": len(asked), "matrices": entry["summary"].get("measured_2d", 0)},
    )


CASES = {"sparsity": _sparsity, "layers": _layers, "rank": _rank, "subspace": _subspace, "nulls": _nulls}


def repeated(summary: Mapping[str, Any]) -> dict[str, str]:
    """Finding -> the number of which other seeds are looked at, where the pair is a run of the study."""
    keys = {"sparsity": "exact_zero", "layers": f"blocks.{_largest(summary)}.energy_share"}
    return keys | {"rank": "svd_energy.16", "subspace": "projection.joint.0.1"}


def _largest(summary: Mapping[str, Any]) -> str:
    blocks: Mapping[str, Mapping[str, Any]] = summary["blocks"]
    return max(blocks, key=lambda block: float(blocks[block]["parameter_share"] or 0))


def warnings(entry: Entry) -> list[str]:
    """What a reader must know before the numbers, a sentence each."""
    text, found = sentences()["warnings"], []

    def warn(which: str, **values: Any) -> None:
        found.append(text[which].format(**values))

    summary, provenance, view = entry["summary"], entry["provenance"], entry["view"]
    source, trained = (entry["dtypes"][side] for side in ("source", "trained"))
    if source != trained:
        what = text["rounded" if view == "bf16" else "as stored"]
        warn("dtypes", source=named(source, 4), trained=named(trained, 4), view=view, what=what)
    for side in ("source", "trained"):
        if _dequantized(provenance[side]):
            warn("dequantized", side=side)
    if summary["exact_zero"] == 1:
        warn("nothing", view=view)
    if "geometry" not in provenance["identity"]["metrics"]:
        warn("only sparsity")
    if "nulls" not in provenance["identity"]["metrics"]:
        warn("without nulls")
    left_out = provenance["tied_or_skipped"]
    noted = {name: why for name, why in provenance.get("notes", {}).items() if name not in left_out}
    for which, reasons in (("left out", left_out), ("noted", noted), ("undefined", provenance["undefined"])):
        for reason in dict.fromkeys(reasons.values()):
            warn(which, names=named([name for name, why in reasons.items() if why == reason], 4), reason=reason)
    if provenance["renamed"]:
        warn("renamed", count=len(provenance["renamed"]))
    for reason, count in entry["no_matrix"].items():
        warn("shallow", count=count, reason=reason)
    return found


def _dequantized(side: Mapping[str, Any]) -> bool:
    known = side.get("format")  # results from before it was recorded are of GGUF files that were
    return "dequantized" in known if known else str(side["spec"]).partition("@")[0].endswith(".gguf")
