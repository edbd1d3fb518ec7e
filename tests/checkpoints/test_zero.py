"""DeepSpeed ZeRO folders, by construction: DeepSpeed is too heavy to install here. The keys and the layout of the flat
vectors are those of its 0.19 `stage_1_and_2.py`, `stage3.py` and `engine.py`; the classes that its pickles name are
made here under their names."""

import enum
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from tests.checkpoints.refusals import refused
from tests.conftest import pico_weights, write_checkpoint

WEIGHTS = {name: weight.float() for name, weight in pico_weights().items()} | {"odd": torch.rand(7, 5)}
FROZEN = {"frozen.weight": torch.rand(3, 5).bfloat16()}
BUFFERS = {"rotary.table": torch.rand(4).bfloat16(), "position_ids": torch.tensor([2**40 + 1, 3])}
SHARED = {"lm_head.weight": "model.embed_tokens.weight"}


class LossScaler:
    def __init__(self, scale: float):
        self.cur_scale, self.dynamic = scale, False


class ZeroStageEnum(int, enum.Enum):
    optimizer_states, gradients, weights = 1, 2, 3


class Unexpected:
    """What stands where DeepSpeed's would, and acts when it is made."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


@pytest.fixture(autouse=True)
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, owned in (
        ("deepspeed.runtime.fp16.loss_scaler", LossScaler),
        ("deepspeed.runtime.zero.config", ZeroStageEnum),
    ):
        module = ModuleType(name)
        setattr(module, owned.__name__, owned)
        monkeypatch.setattr(owned, "__module__", name)
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        monkeypatch.setitem(sys.modules, name, module)


def vectors(stage: int, ranks: int, groups: list[Mapping[str, torch.Tensor]]) -> list[list[torch.Tensor]]:
    """The masters of every rank."""
    if stage == 3:
        tapes = []
        for rank in range(ranks):
            shares = []
            for weight in (w for group in groups for w in group.values()):
                share = math.ceil(weight.numel() / ranks)
                padded = torch.cat([weight.flatten(), torch.zeros(share * ranks - weight.numel())])
                shares.append(padded[rank * share : (rank + 1) * share])
            tape = torch.cat(shares)
            tapes.append([tape[:100].clone(), tape[100:].clone()])  # sub-groups, wherever they end
        return tapes
    cut: list[list[torch.Tensor]] = [[] for _ in range(ranks)]
    for group in groups:
        flat = torch.cat([weight.flatten() for weight in group.values()])
        size = math.ceil(flat.numel() / (2 * ranks)) * 2
        for rank in range(ranks):
            cut[rank].append(flat[rank * size : (rank + 1) * size].clone())  # the padding of the last is not saved
    return cut


def written(folder: Path, stage: int, ranks: int, more: Any = None) -> Path:
    step = folder / "global_step12"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step12")
    names = [*WEIGHTS]
    groups: list[Mapping[str, torch.Tensor]] = [{n: WEIGHTS[n] for n in names[:9]}, {n: WEIGHTS[n] for n in names[9:]}]
    flat = vectors(stage, ranks, groups)
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    for rank in range(ranks):
        optimizer = {
            "loss_scaler": LossScaler(1.0),
            "zero_stage": ZeroStageEnum(stage),
            "partition_count": ranks if stage == 3 else [ranks, ranks],
            key: flat[rank],
            "base_optimizer_state" if stage < 3 else "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3)}}},
        }
        if more is not None:
            optimizer["more"] = more
        torch.save(
            {
                "optimizer_state_dict": optimizer,
                "ds_config": {"zero_optimization": {"stage": stage}},
                "ds_version": "0",
            },
            step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
        )
        frozen = {
            name: weight
            if stage < 3
            else torch.cat([weight.flatten(), torch.zeros(ranks).bfloat16()])[
                rank * math.ceil(15 / ranks) : (rank + 1) * math.ceil(15 / ranks)
            ].clone()
            for name, weight in FROZEN.items()
        }
        module = {n: w.bfloat16() if stage < 3 else torch.empty(0) for n, w in WEIGHTS.items()} | BUFFERS
        model = {
            "module": OrderedDict(module),
            "buffer_names": [*BUFFERS],
            "param_shapes": [OrderedDict((n, w.shape) for n, w in group.items()) for group in groups],
            "frozen_param_shapes": {n: w.shape for n, w in FROZEN.items()},
            "frozen_param_fragments": frozen,
            "shared_params": SHARED,
            "ds_version": "0.19.8",
        }
        name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
        torch.save(model, step / name)
    return folder


@pytest.mark.parametrize(("stage", "ranks"), [(1, 1), (1, 3), (2, 2), (2, 4), (3, 1), (3, 2), (3, 5)])
def test_the_masters_of_all_ranks_make_up_the_model(tmp_path: Path, stage: int, ranks: int) -> None:
    folder = written(tmp_path / "checkpoint-12", stage, ranks)
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    wanted = WEIGHTS | FROZEN | {n: b.float() if b.is_floating_point() else b for n, b in BUFFERS.items()}
    wanted |= {name: WEIGHTS[other] for name, other in SHARED.items()}
    checkpoint = open_checkpoint(str(folder))
    assert set(checkpoint.tensors) == set(wanted)
    for name, weight in wanted.items():
        assert torch.equal(checkpoint.read(name), weight), name
    safe = {name: weight.clone() for name, weight in wanted.items()}
    assert checkpoint.digest() == open_checkpoint(str(write_checkpoint(tmp_path / "s", safe))).digest()
    assert "not read" not in checkpoint.origin()
    assert checkpoint.origin()["format"] == f"DeepSpeed ZeRO {stage}, {ranks} ranks"
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert open_checkpoint(str(folder / "global_step12")).digest() == checkpoint.digest()


def test_other_classes_than_deepspeeds_are_refused_and_never_made(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", 2, 2, more=Unexpected(tmp_path / "canary"))
    refused(folder, r"posix\.mkdir.*nothing of it was run")
    assert not (tmp_path / "canary").exists()
    torch.load(next((folder / "global_step12").glob("*optim_states.pt")), weights_only=False)
    assert (tmp_path / "canary").exists(), "the bomb must work, or this test shows nothing"


def test_what_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", 3, 3)
    step = folder / "global_step12"
    one = step / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    refused(one, "the part of one process; give the folder")
    one.rename(folder / "kept")
    refused(folder, "states of process 1 are missing")
    (step / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt").unlink()
    refused(folder, "states of 1 processes, of 3")
    (folder / "latest").write_text("../elsewhere")
    refused(folder, r"names '\.\./elsewhere', which is no folder beside it")
    (folder / "latest").write_text("global_step12")
    (step / "bf16_zero_pp_rank_0_mp_rank_01_optim_states.pt").write_bytes(b"")
    refused(folder, "several model-parallel ranks")
    short = written(tmp_path / "b", 2, 2)
    file = next((short / "global_step12").glob("*rank_1_mp*optim*"))
    state = torch.load(file, weights_only=False)
    state["optimizer_state_dict"]["single_partition_of_fp32_groups"][0] = torch.ones(7)
    torch.save(state, file)
    refused(short, "holds .* numbers for parameters of")
    first = next((short / "global_step12").glob("*rank_0_mp*optim*"))
    torch.save({"optimizer_state_dict": state["optimizer_state_dict"] | {"zero_stage": 4}}, first)
    refused(short, "of ZeRO stage 4, wanted 1, 2 or 3")
    (short / "global_step12" / "mp_rank_00_model_states.pt").write_bytes(b"PK\x03\x04 cut")
    refused(short, "not a whole pickle")
