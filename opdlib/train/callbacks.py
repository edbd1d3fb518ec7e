"""What is added to TRL's loop: one JSON line a step, checkpoints that are whole or ignored, a quiet bar."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from opdlib.errors import RecipeError

WHOLE = "whole"
"""Empty file that is written last into a checkpoint; a checkpoint without it was being saved when the run died."""


class Metrics(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Appends one line a step to metrics.jsonl, and cuts what a killed run wrote after its last checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        lines = (
            self.path.read_text(encoding="utf8").splitlines(keepends=True)
            if self.path.exists()
            else []
        )
        kept = self.path.with_suffix(".new")
        kept.write_text("".join(lines[: state.global_step]), encoding="utf8")
        os.replace(kept, self.path)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        if "loss" not in logs:  # the summary at the end of training
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise RecipeError(
                    f"{name} is {logs[name]} at step {state.global_step}; try a smaller learning_rate"
                )
        row = {
            "step": state.global_step,
            **logs,
            "seconds": round(time.perf_counter() - self.began, 3),
        }
        with self.path.open("a", encoding="utf8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole once everything is in it, and only then deletes the older ones."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (saved / WHOLE).touch()
        for other in saved.parent.glob("checkpoint-*"):
            if other != saved:
                shutil.rmtree(other)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, if there is any."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class Bar(TrainerCallback):  # type: ignore[misc]
    """A progress bar over steps, on a terminal only."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="train",
            unit="step",
            disable=None,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()
