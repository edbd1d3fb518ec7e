"""Checkpoints whose weights are quantized, seen as what they stand for: fp8 with scales, and the MXFP4 of gpt-oss.

A weight is dequantized when it is read; its scales are no tensors of their own any more. Packed integers need the
library that packed them, and are refused by its name.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.errors import CheckpointError, needs_extra
from opdlib.foreign import foreign

FP8 = ("F8_E4M3", "F8_E5M2")
SCALES = ("_scale_inv", "_scale")
"""What is added to the name of a weight in fp8 for what it is multiplied by, whatever the word says."""
BLOCK = (128, 128)
"""Rows and columns that share a scale, if config.json does not say."""
ACTIVATIONS = (".input_scale", ".activation_scale", ".k_scale", ".v_scale")
PACKED = {
    ".qweight": ("GPTQ or AWQ", "gptqmodel (GPTQ) or autoawq (AWQ)"),
    ".weight_packed": ("compressed-tensors", "compressed-tensors"),
    ".weight_scale_2": ("NVFP4", "nvidia-modelopt"),
    ".SCB": ("bitsandbytes int8", "bitsandbytes"),
    ".absmax": ("bitsandbytes 4-bit", "bitsandbytes"),
    ".W_q": ("HQQ", "hqq"),
}
"""Ending of a tensor's name -> the method that packs so, and what to install to undo it."""


class DequantizedCheckpoint(Checkpoint):
    """A checkpoint with weights in fp8 or MXFP4, as float32 and bf16. Raises CheckpointError for scales that do not fit
    their weights; MissingDependencyError where transformers is needed and not installed."""

    def __init__(self, stored: Checkpoint, fp8: Mapping[str, str], mxfp4: Sequence[str]):
        self.spec, self.folder, self.revision, self.beside = stored.spec, stored.folder, stored.revision, stored.beside
        self._stored, self._fp8, self._mxfp4, self.watched = stored, fp8, mxfp4, stored.watched
        methods = ["fp8"] * bool(fp8) + ["MXFP4"] * bool(mxfp4)
        self.format = f"{stored.format}, dequantized from {' and '.join(methods)}"
        used = {*fp8.values(), *(f"{name}{end}" for name in mxfp4 for end in ("_blocks", "_scales"))}
        tensors = {n: i for n, i in stored.tensors.items() if n not in used and not n.endswith(ACTIVATIONS)}
        tensors |= {name: TensorInfo(stored.tensors[name].shape, "F32") for name in fp8}
        self.tensors = tensors | {name: TensorInfo(self._unpacked_shape(name), "BF16") for name in mxfp4}

    def read(self, name: str) -> torch.Tensor:
        info = self.info(name)
        with foreign(f"{self.spec}: {name}", CheckpointError, "its scales must belong to it, copy both again"):
            if name in self._fp8:
                weight = self._stored.read(name).float()
                return weight.mul_(self._spread(name, self._stored.read(self._fp8[name]).float()))
            if name in self._mxfp4:
                try:
                    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
                except ModuleNotFoundError as error:
                    raise needs_extra(error) from error
                blocks, scales = (self._stored.read(f"{name}{end}") for end in ("_blocks", "_scales"))
                made: torch.Tensor = convert_moe_packed_tensors(blocks, scales)
                return made.reshape(info.shape).contiguous()
        return self._stored.read(name)

    def _unpacked_shape(self, name: str) -> tuple[int, ...]:
        """Experts x inputs x outputs, as transformers turns them."""
        blocks, scales = (self._stored.tensors[f"{name}{end}"].shape for end in ("_blocks", "_scales"))
        if len(blocks) != 4 or blocks[:3] != scales:
            raise CheckpointError(f"{self.spec}: {name} has blocks {blocks} and scales {scales}; copy it again")
        experts, rows, groups, size = blocks
        return experts, groups * size * 2, rows

    def _spread(self, name: str, scale: torch.Tensor) -> torch.Tensor:
        """The scale of every coordinate, or what broadcasts to it."""
        shape = self._stored.tensors[name].shape
        if scale.numel() == 1:
            return scale.reshape(())
        if scale.ndim == 1 and scale.shape[0] == shape[0]:
            scale = scale.reshape(-1, *(1 for _ in shape[1:]))
        if scale.ndim == len(shape) and all(own in (1, of) for own, of in zip(scale.shape, shape, strict=True)):
            return scale
        block = self._block()
        wanted = (*shape[:-2], *(math.ceil(length / size) for length, size in zip(shape[-2:], block, strict=True)))
        if tuple(scale.shape) != wanted:
            raise CheckpointError(
                f"{self.spec}: {name} is {shape} in blocks of {block} with scales {tuple(scale.shape)}, wanted "
                f"{wanted}; give weight_block_size in config.json"
            )
        for axis, (size, length) in enumerate(zip(block, shape[-2:], strict=True), start=len(shape) - 2):
            scale = scale.repeat_interleave(min(size, length), axis).narrow(axis, 0, length)
        return scale

    def _block(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        quantization = self._stored.config.get("quantization_config")
        said = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
        if said is None:
            return BLOCK
        if not (isinstance(said, list) and len(said) == 2 and all(type(size) is int and size > 0 for size in said)):
            raise CheckpointError(f"{self.spec}: weight_block_size in config.json is {said!r}; wanted two numbers")
        return said[0], said[1]


def dequantized(stored: Checkpoint) -> Checkpoint:
    """`stored` itself, or what it stands for if it is quantized. Raises CheckpointError for packed integers."""
    names = stored.tensors
    for ending, (method, library) in PACKED.items():
        if packed := next((name for name in names if name.endswith(ending)), None):
            raise CheckpointError(
                f"{stored.spec}: {packed} is packed by {method}; install {library}, load the model with transformers, "
                "dequantize it and save it, and give the result (or the checkpoint that was quantized)"
            )
    fp8 = {
        name: scale
        for name, info in names.items()
        if info.dtype in FP8 and (scale := next((name + end for end in SCALES if name + end in names), None))
    }
    packs = {name.removesuffix("_blocks") for name in names if name.endswith("_blocks")}
    mxfp4 = sorted(name for name in packs if f"{name}_scales" in names)
    return DequantizedCheckpoint(stored, fp8, mxfp4) if fp8 or mxfp4 else stored
