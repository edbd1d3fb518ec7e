"""The optimizers of the ablation, each one difference away from AdamW or from plain gradient descent.

| name | step | what it isolates |
| --- | --- | --- |
| `adamw` | torch's AdamW, betas 0.9 and 0.999, eps 1e-8 | the paper's |
| `rmsprop` | the same with beta1 = 0: RMSProp with Adam's bias correction | adaptive scale without momentum |
| `sgd` | gradient descent | neither |
| `sgdm` | gradient descent with momentum 0.9 | momentum without adaptive scale |

torch's own RMSprop differs from AdamW in a second way: without bias correction its first steps are
1/sqrt(1 - alpha) times too long, ten times for its default. So it is not used.
"""

from __future__ import annotations

from typing import Any

import torch

SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "rmsprop": {"optim": "adamw_torch_fused", "adam_beta1": 0.0},
    "sgd": {"optim": "sgd"},
    "sgdm": {"optim": "sgd", "optim_args": "momentum=0.9"},
}
"""By name: the arguments of transformers' `TrainingArguments`."""


def inside(optimizer: Any) -> torch.optim.Optimizer:
    """torch's optimizer inside accelerate's wrapper, if it is wrapped."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found
