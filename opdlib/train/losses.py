"""The losses that TRL has not: what a teacher says of each sampled token, and what the student pays for it.

All are means over completion tokens. At a position, p is the student's distribution over the vocabulary, t the
teacher's, both at the recipe's temperature, y the sampled token:

| loss | at one position |
| --- | --- |
| `cross-entropy` | -log p(c), c the next token of a teacher's completion, or its draw at the student's prefix |
| `k1` | (log p(y) - log t(y)), detached, times log p(y): its expected gradient over y ~ p is that of the reverse KL |
| `top-k` | sum of t (log t - log p) over the teacher's k likeliest tokens, neither side renormalised |

The last is what the paper calls forward KL on the teacher's top k; with k the size of the vocabulary it is the forward
KL. The paper does not say whether the truncated distributions are renormalised; here they are not, so that no gradient
is hidden where the teacher's mass is elsewhere.
"""

import torch
from torch import Tensor


def drawn(teacher: Tensor) -> Tensor:
    """A token a row from the teacher's logits (rows, vocabulary), by torch's global generator: (rows,), int64."""
    return torch.multinomial(torch.softmax(teacher, dim=-1), 1).squeeze(-1)


def cross_entropy(student: Tensor, token: Tensor) -> Tensor:
    """Of logits (rows, vocabulary) and tokens (rows,): nats >= 0, (rows,)."""
    return torch.nn.functional.cross_entropy(student, token, reduction="none")


def k1(student: Tensor, token: Tensor, teacher_log_probability: Tensor) -> Tensor:
    """The policy-gradient surrogate of the reverse KL at the sampled tokens, (rows,); may be of either sign. Schulman's
    k1 estimate of the KL is the detached factor, the advantage its negative."""
    log_probability = -cross_entropy(student, token)
    return (log_probability.detach() - teacher_log_probability) * log_probability


def top_k(student: Tensor, tokens: Tensor, teacher_log_probabilities: Tensor) -> Tensor:
    """Forward KL restricted to the teacher's `tokens` (rows, k), (rows,); may be slightly negative.
    `teacher_log_probabilities` are theirs among the whole vocabulary, as the student's are here."""
    log_probabilities = torch.log_softmax(student, dim=-1).gather(-1, tokens)
    return (teacher_log_probabilities.exp() * (teacher_log_probabilities - log_probabilities)).sum(-1)


def entropy(student: Tensor) -> Tensor:
    """Of logits (rows, vocabulary): nats >= 0, (rows,)."""
    log_probabilities = torch.log_softmax(student, dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)
