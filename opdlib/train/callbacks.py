"""What is added to TRL's loop: one JSON line a step, checkpoints whole or ignored, a quiet bar."""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import OutputError, RecipeError
from opdlib.files import new_folder
from opdlib.foreign import reason
from opdlib.train.adapter import whole_state
from opdlib.train.models import save_state
from opdlib.train.processes import first, meet
from opdlib.train.run_folder import StepLog

Look = Callable[[Checkpoint, Path], None]
"""Is given a run's source and a folder of weights, named by their step. It may delete them, and must change nothing
else: neither the model nor torch's random numbers or threads."""

WHOLE = "whole"
"""Empty file written last into a checkpoint; one without it was being saved when the run died."""


class Metrics(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Appends a line a step to metrics.jsonl; cuts what a killed run wrote after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.log = StepLog(path)
        self.began = self.seconds = 0.0
        self.uncounted = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep one line for every step that the checkpoint, if there is one, has seen."""
        rows = self.log.cut(state.global_step)
        # SFTTrainer forgets how many tokens it had seen; DistillationTrainer keeps them in `state`.
        seen = rows[-1].get("num_tokens", 0) if rows else 0
        self.uncounted = seen - state.num_input_tokens_seen

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Here a step ends: what comes before the log is looking on, evaluating and saving."""
        self.seconds = round(time.perf_counter() - self.began, 3)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what TRL logged, and the seconds. Raises RecipeError if the run has diverged."""
        logs = kwargs["logs"]
        if "loss" not in logs:  # the summary at the end of training
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise RecipeError(
                    f"{self.log.path.parent.name}: {name} is {logs[name]} at step {state.global_step}; "
                    "wanted a finite number; try a smaller learning_rate"
                )
        tokens = logs["num_tokens"] + self.uncounted
        self.log.append({"step": state.global_step, **logs, "num_tokens": tokens, "seconds": self.seconds})


class Checkpoints(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Marks a checkpoint as whole once everything is in it, and only then deletes the older ones."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        meet()
        if not first():
            return
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (saved / WHOLE).touch()
        for other in saved.parent.glob("checkpoint-*"):
            if other != saved:
                shutil.rmtree(other)


@contextmanager
def saved_or_explained(folder: Path, step: Callable[[], int]) -> Iterator[None]:
    """Whatever is raised while the checkpoint of `step` is being saved in `folder` becomes an OutputError: packages say
    in many ways that a disk is full."""
    try:
        yield
    except Exception as error:
        half = folder / f"checkpoint-{step()}"
        if not half.is_dir() or (half / WHOLE).exists():
            raise
        raise OutputError(
            f"{half}: cannot be written ({reason(error)}); free space, then go on with --resume"
        ) from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, if there is any."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{WHOLE}") if mark.parent.name[11:].isdecimal()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class Keep(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Keeps the weights of every so many steps, but the last, in `folder`, by the tensor names of `source`: rounded to
    bf16, or as they are for somebody who looks at them at once."""

    def __init__(self, every: int, folder: Path, source: Checkpoint, look: Look | None = None) -> None:
        self.every, self.folder, self.source, self.look = every, folder, source, look

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            dtype = torch.float32 if self.look else torch.bfloat16
            with new_folder(self.folder / str(state.global_step), replace=True) as new:
                save_state(whole_state(kwargs["model"]), self.source, new, dtype)
            if self.look:
                self.look(self.source, self.folder / str(state.global_step))


class Bar(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """A progress bar over steps, on a terminal only."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit="step", disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


def unwrapped(optimizer: Any) -> Any:
    """torch's optimizer inside accelerate's wrapper, if it is wrapped."""
    return getattr(optimizer, "optimizer", optimizer)
