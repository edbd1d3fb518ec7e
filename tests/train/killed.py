"""Runs in processes of their own, to be killed at a chosen moment or to share one."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from opdlib.train import callbacks, objectives, run
from opdlib.train.tasks import Task


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class MetricsOfStepFive(callbacks.Metrics):
    """Dies in the middle of the line of step 6."""

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_log(args, state, control, **kwargs)
        if state.global_step == 5:
            with self.log.path.open("a") as stream:
                stream.write('{"step": 6, "lo')
            die()


class MetricsOfStepOne(callbacks.Metrics):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_log(args, state, control, **kwargs)
        die()


class HalfACheckpoint(callbacks.Checkpoints):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            (Path(args.output_dir) / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
            die()
        super().on_save(args, state, control, **kwargs)


def save_one_form(state: Any, source: Any, folder: Path, dtype: Any) -> None:
    save_state(state, source, folder, dtype)
    if "bf16" in folder.name:
        die()


save_state = run.save_state

REPLACED: dict[str, tuple[str, object]] = {
    "in step 5": ("Metrics", MetricsOfStepFive),
    "while checkpoint 4 is saved": ("Checkpoints", HalfACheckpoint),
    "between the two forms": ("save_state", save_one_form),
    "before the first checkpoint": ("Metrics", MetricsOfStepOne),
}
"""Moment -> the name in opdlib.train.run that is replaced, and by what."""


def rewarded(_: Task) -> Callable[..., list[float]]:
    """A reward that random answers get as well: no random answer is ever right, and nothing would be learned."""

    def even(completions: list[str], **others: Any) -> list[float]:
        return [float(len(said) % 2 == 0) for said in completions]

    return even


def start(moment: str, recipe: Path, out: Path) -> None:
    objectives._reward = rewarded
    name, replacement = REPLACED[moment]
    setattr(run, name, replacement)
    run.train(recipe, out=out)


def exit_codes(target: Callable[..., None], *arguments: Sequence[Any]) -> list[int | None]:
    """Call `target` with each of these arguments, in a process for each, all at once, and give their exit codes. When
    one fails the others are killed, as by a launcher. The processes are forks of one that has TRL loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=target, args=tuple(own)) for own in arguments]
    for process in processes:
        process.start()
    while running := [process.sentinel for process in processes if process.exitcode is None]:
        wait(running)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
    return [process.exitcode for process in processes]


def train_until(moment: str, recipe: Path, out: Path) -> int | None:
    """Train in another process and give its exit code."""
    (code,) = exit_codes(start, (moment, recipe, out))
    return code
