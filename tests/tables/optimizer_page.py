"""What the page on optimizers makes of the tables of a study."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from opdlib.tables import study
from opdlib.tables.optimizers import state, sweep
from tests.tables.optimizer_runs import ACCURACY, write_runs


@dataclass
class Page:
    """What the notebook makes first, from the tables below a folder."""

    root: Path

    def __post_init__(self) -> None:
        self.arms = sweep.arms("pico", self.root)
        self.runs = sweep.labelled(study.runs("pico", root=self.root), self.arms)
        self.curves = sweep.labelled(study.curves("pico", root=self.root), self.arms)
        self.paths = sweep.paths("pico", self.arms, self.root)
        self.states = state.states(self.curves)

    def run(self, arm: str) -> pd.Series:
        return self.arms.set_index("arm").loc[arm]


def page(folder: Path, seeds: int, *more: str) -> Page:
    write_runs(folder, [*ACCURACY, *more], seeds)
    return Page(folder)
