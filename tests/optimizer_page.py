"""What the page on optimizers makes of results folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from opdlib.tables import optimizers, study
from opdlib.tables.optimizers import state
from tests.optimizer_runs import ACCURACY, write_run


@dataclass
class Page:
    """What the notebook makes first, from the results below a folder."""

    root: Path

    def __post_init__(self) -> None:
        self.arms = optimizers.sweep("pico", self.root)
        self.runs = optimizers.labelled(study.runs("pico", results=self.root), self.arms)
        self.curves = optimizers.labelled(study.curves("pico", results=self.root), self.arms)
        self.paths = optimizers.labelled(optimizers.paths("pico", self.arms, self.root), self.arms)
        self.states = state.states(self.curves)

    def run(self, arm: str) -> pd.Series:
        return self.arms.set_index("arm").loc[arm]


def page(folder: Path, seeds: int, *more: str) -> Page:
    for arm in [*ACCURACY, *more]:
        for seed in range(seeds):
            write_run(folder, arm, seed)
    return Page(folder)
