"""Results for a notebook: looked up by content, or measured on the spot. Nothing is ever silently stale.

torch is imported only when a checkpoint must be read, so that committed results can be shown without it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.checkpoints import short_name
from opdlib.checkpoints.patch_header import read_header
from opdlib.errors import CheckpointError, MissingDependencyError, ParameterError, PatchError, RegistryError
from opdlib.files import find
from opdlib.notebook.display import say
from opdlib.registry.pairs import DEFAULT, Pair, find_pair
from opdlib.registry.study import find_run
from opdlib.results.layout import State, cached_folder, find_by_content, missing_tables, state_of
from opdlib.results.open import open_results
from opdlib.tables import Results, headed


def load(
    pair: str = DEFAULT,
    source: str | None = None,
    trained: str | None = None,
    skip: Sequence[str] = (),
    view: str = "bf16",
    metrics: Sequence[str] = ("sparsity",),
) -> Results:
    """The results of a pair of the registry, or of two checkpoints (which win), in one view: at least these metrics.

    A pair's committed results are taken if they are those of its checkpoints: where its patch is at hand, the digests
    in the patch's header must agree. Otherwise the checkpoints are opened and their digests looked up among the
    committed results, then in the user's cache; what is in neither is measured now, with a progress bar, and kept in
    the cache. Raises RegistryError for stale results, ParameterError for a pair without a checkpoint and for a run of
    the study whose weights are not here, and what opening and measuring raise.
    """
    if source is not None and trained is not None:
        return _measured(source, trained, view, skip, metrics, short_name(trained), None)
    known = find_pair(pair)
    left_out = sorted({*known.skip, *skip})
    committed = _committed(known, view, left_out, metrics)
    if committed:
        return committed
    if known.trained is None:
        raise ParameterError(f"pair {known.key!r}: {known.why}; give the checkpoints yourself as source and trained")
    if known.obstacle() and find_run(known.key):
        raise ParameterError(f"pair {known.key!r}: {missing_tables(known, view)}")
    return _measured(known.source, known.trained, view, left_out, metrics, known.title, known)


def load_stored(
    results: Results,
    pair: str = DEFAULT,
    source: str | None = None,
    trained: str | None = None,
    skip: Sequence[str] = (),
    metrics: Sequence[str] = ("sparsity",),
) -> Results | None:
    """The view `stored` of what `results` shows in view bf16; None, with a sentence that says so, if there is none.

    There is none when both checkpoints are stored in bf16 (it would be the same again), and when the checkpoints cannot
    be read here.
    """
    known = None if source is not None else find_pair(pair)
    committed = _committed(known, "stored", sorted({*known.skip, *skip}), metrics) if known else None
    if committed:
        if committed.provenance["identity"]["source"] != results.provenance["identity"]["source"]:
            raise RegistryError(f"{committed.folder}: measured over another source than view bf16; measure both again")
        return committed
    if set(results.tensors["dtype_source"]) | set(results.tensors["dtype_trained"]) == {"BF16"}:
        say("Both checkpoints are stored in bf16, so the view `stored` is the same and is not shown again.")
        return None
    try:
        return load(pair, source, trained, skip, "stored", metrics)
    except (CheckpointError, MissingDependencyError, ParameterError, PatchError) as error:
        say("The view `stored` needs the checkpoints, which cannot be read here: {error}", error=error)
        return None


def provenance(*views: Results) -> pd.DataFrame:
    """What was compared and with what it was measured: one column a view. Digests are the first hex digits of SHA-256
    over all tensors; provenance.json has them in full."""
    return headed(pd.DataFrame({f"view {v.view}": _facts(v) for v in views}).fillna("").rename_axis("what"))


def _facts(results: Results) -> dict[str, str]:
    known = results.provenance
    sides = {
        f"{side} {what}": known[side][what][:16] if what == "digest" else known[side][what]
        for side in ("source", "trained")
        for what in ("spec", "format", "base", "not read", "digest", "revision")
        if what in known[side]
    }
    facts = {
        **sides,
        "left out": "; ".join(f"{name}: {reason}" for name, reason in known["tied_or_skipped"].items()),
        "renamed tensors": str(len(known["renamed"]) or ""),
        "undefined": "; ".join(f"{name}: {reason}" for name, reason in known["undefined"].items()),
        "measured with": ", ".join(f"{name} {version}" for name, version in known["versions"].items()),
        "note": known.get("note", ""),
    }
    return {name: value for name, value in facts.items() if value}


def _committed(pair: Pair, view: str, skip: list[str], metrics: Sequence[str]) -> Results | None:
    if state_of(pair, view) is not State.COMPLETE:
        return None
    results = open_results(pair.key, view)
    identity = results.provenance["identity"]
    if identity["skip"] != skip or not set(metrics) <= set(identity["metrics"]):
        return None
    patch = find(Path((pair.trained or "").removeprefix("patch:")))
    if (pair.trained or "").startswith("patch:") and patch.is_file():
        header = read_header(patch)
        wanted = {"source": header.source_digest} | ({"trained": header.result_digest} if view == "bf16" else {})
        for side, digest in wanted.items():
            if identity[side] != digest:
                raise RegistryError(
                    f"pair {pair.key!r}: its committed results in view {view} are of a {side} with digest "
                    f"{identity[side][:12]}, but {patch.name} is about {digest[:12]}; measure the pair again"
                )
    return results


def _measured(
    source: str, trained: str, view: str, skip: Sequence[str], metrics: Sequence[str], name: str, pair: Pair | None
) -> Results:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.measurement.schedule import EVERYTHING, METRICS, identity
    from opdlib.results.measure import measure_into

    before, after = open_checkpoint(source), open_checkpoint(trained)
    more = [m for m in (EVERYTHING, METRICS, METRICS[:2], metrics) if set(metrics) <= set(m)]
    known = [identity(before.digest(), after.digest(), view, skip, m, {}) for m in more]
    folder = next((found for one in known if (found := find_by_content(one))), None)
    if folder is None:
        folder = cached_folder(known[-1])
        options: dict[str, Any] = {"view": view, "metrics": metrics, "progress": not os.environ.get("TQDM_DISABLE")}
        measure_into(folder, before, after, name=pair.key if pair else name, skip=skip, once=True, **options)
    return Results(folder, name, pair)
