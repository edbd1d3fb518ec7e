"""Why two checkpoints cannot be compared, and what helps: merge, dequantize, rename, or leave out."""

from collections.abc import Mapping, Sequence

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.matrices import Place
from opdlib.checkpoints.names import is_head
from opdlib.errors import AlignmentError, MeasureError, named

DTYPES = ("BF16", "F16", "F32")
"""Stored dtypes that can be subtracted exactly in float64."""

ADAPTER = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "modules_to_save")
"""Segments of the names in an adapter."""
QUANTIZED = (
    *("qweight", "qzeros", "g_idx", "weight_scale", "weight_scale_inv", "weight_packed", "weight_shape", "absmax"),
    *("gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_blocks", "down_proj_scales", "input_scale"),
)
"""Last segments of what quantizers store beside or in the place of a weight."""
DEQUANTIZE = "Dequantize it first (transformers: model.dequantize(), then save_pretrained)"

TRIED = 20
"""Renamings that are tried on all names."""

Side = tuple[Checkpoint, Mapping[str, Place]]


def refuse_strangers(source: Side, trained: Side, partners: Mapping[str, str]) -> None:
    """Raise AlignmentError if a parameter of one side has no partner in the other; `partners`: source's name -> other's
    name."""
    strangers = sorted(set(source[1]) - set(partners)), sorted(set(trained[1]) - set(partners.values()))
    if not any(strangers):
        return
    for (checkpoint, _), names in zip((source, trained), strangers, strict=True):
        if name := next((name for name in names if not set(name.split(".")).isdisjoint(ADAPTER)), None):
            raise AlignmentError(
                f"{checkpoint.spec}: {name} belongs to an adapter, which is no whole model; merge it into its base "
                "(peft: model.merge_and_unload(), then save_pretrained)"
            )
        if name := next((name for name in names if name.endswith(QUANTIZED)), None):
            raise AlignmentError(f"{checkpoint.spec}: {name} says that the checkpoint is quantized. {DEQUANTIZE}")
    lists = [
        f"only in {c.spec}: {named(names)}" for (c, _), names in zip((source, trained), strangers, strict=True) if names
    ]
    found = f"tensors without a partner, {'; '.join(lists)}"
    rename = _rename(*strangers)
    if not partners:
        first = " and ".join(names[0] if names else "-" for names in strangers)
        sizes = f"{len(source[1])} and {len(trained[1])} tensors, such as {first}"
        found = f"{source[0].spec} and {trained[0].spec} have no tensor name in common ({sizes})"
        if not rename:
            raise AlignmentError(
                f"{found}; wanted a model and what was trained from it. If only names differ, say how with "
                "--rename FROM=TO"
            )
    if rename:
        raise AlignmentError(f"{found}. The names differ in their beginnings; say so with --rename {rename}")
    if not strangers[0] and all(map(is_head, strangers[1])):
        raise AlignmentError(
            f"{found}. If the head of {source[0].spec} is its embedding, say so in its config.json "
            "(tie_word_embeddings: true); or leave the head out under skip (--skip NAME)"
        )
    if min(map(len, strangers)) > len(partners):
        raise AlignmentError(
            f"{found}. Wanted a model and what was trained from it; if another library wrote it under its own names, "
            "convert it to those of the source first"
        )
    raise AlignmentError(
        f"{found}. Every tensor must be in both; list what should be left out under skip (--skip NAME)"
    )


def unequal(source: Checkpoint, trained: Checkpoint, name: str, before: Place, after: Place) -> AlignmentError:
    """What to raise for two shapes of one parameter."""
    shapes = f"{list(before.info.shape)} in {source.spec}, {list(after.info.shape)} in {trained.spec}"
    return AlignmentError(
        f"{name}: {shapes}; a delta needs equal shapes. Wanted a model and what was trained from it; if this tensor "
        "alone was made anew, leave it out under skip (--skip NAME)"
    )


def refuse_dtypes(*sides: tuple[Checkpoint, Place]) -> None:
    """Raise MeasureError for a tensor whose values cannot be subtracted."""
    for checkpoint, place in sides:
        dtype = place.info.dtype
        if dtype in DTYPES:
            continue
        quantized = dtype.startswith(("F8", "F4")) or "quantization_config" in checkpoint.config
        helps = (
            "Save it as float32"
            if dtype == "F64"
            else DEQUANTIZE
            if quantized
            else f"{DEQUANTIZE}; if it is no weight, leave it out under skip (--skip NAME)"
        )
        raise MeasureError(
            f"{checkpoint.spec}: {place.stored} is stored as {dtype}; wanted one of {', '.join(DTYPES)}. {helps}"
        )


def _rename(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """FROM=TO that gives every stranger of one side a name of the other; empty if there is no such pair."""
    for name in ours[:1]:
        differ = {_beginnings(other, name): None for other in theirs}
        for old, new in sorted(differ, key=lambda both: len("".join(both)))[:TRIED]:  # the longest common ends
            if (old or new) and {new + n.removeprefix(old) for n in theirs if n.startswith(old)} >= set(ours):
                return f"{old}={new}"
    return ""


def _beginnings(name: str, other: str) -> tuple[str, str]:
    """Both names up to where their common end begins; names without one whole."""
    ends = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    common = 0
    for a, b in ends:
        if a != b:
            break
        common += 1
    starts = (n.split(".")[: len(n.split(".")) - common] for n in (name, other))
    first, second = ("".join(f"{segment}." for segment in start) for start in starts)
    return first, second
