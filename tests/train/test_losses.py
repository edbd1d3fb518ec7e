"""The losses against their definitions, and k1 against the gradient that it estimates."""

import pytest
import torch

from opdlib.train import losses


def logits(seed: int, rows: int = 5, vocabulary: int = 7) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def test_the_expected_gradient_of_k1_is_that_of_the_reverse_kl() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    teacher_log = torch.log_softmax(teacher, -1)
    probability = torch.softmax(student, -1)
    reverse_kl = (probability * (torch.log_softmax(student, -1) - teacher_log)).sum(-1)
    (exact,) = torch.autograd.grad(reverse_kl.sum(), student)
    expected = torch.zeros_like(exact)
    for token in range(student.shape[1]):  # every sample there is, weighted by its probability
        tokens = torch.full((len(student),), token)
        surrogate = losses.k1(student, tokens, teacher_log[:, token])
        (gradient,) = torch.autograd.grad((probability[:, token].detach() * surrogate).sum(), student)
        expected += gradient
    torch.testing.assert_close(expected, exact, rtol=1e-12, atol=1e-14)


def test_the_expected_gradient_of_the_drawn_cross_entropy_is_that_of_the_forward_kl() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    q = torch.softmax(teacher, -1)
    forward_kl = (q * (q.log() - torch.log_softmax(student, -1))).sum(-1)
    (exact,) = torch.autograd.grad(forward_kl.sum(), student)
    weighted = sum(
        (q[:, token] * losses.cross_entropy(student, torch.full((len(student),), token))).sum()
        for token in range(student.shape[1])
    )
    (expected,) = torch.autograd.grad(weighted, student)
    torch.testing.assert_close(expected, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_top_k_is_the_sum_over_the_teachers_likeliest(k: int) -> None:
    student, teacher = logits(2), logits(3)
    p, q = torch.softmax(student, -1), torch.softmax(teacher, -1)
    likeliest = torch.log_softmax(teacher, -1).topk(k, dim=-1)
    found = losses.top_k(student, likeliest.indices, likeliest.values)
    for row in range(len(student)):
        order = q[row].argsort(descending=True)[:k]
        expected = sum(float(q[row, v] * (q[row, v] / p[row, v]).log()) for v in order)
        assert float(found[row]) == pytest.approx(expected, rel=1e-12)
    if k == 7:
        assert (found >= 0).all()


def test_draws_follow_the_teacher() -> None:
    torch.manual_seed(0)
    teacher = torch.tensor([[0.0, 1.0, -1.0]]).expand(30_000, 3)
    shares = torch.bincount(losses.drawn(teacher), minlength=3) / len(teacher)
    torch.testing.assert_close(shares, torch.softmax(teacher[0], -1), atol=0.01, rtol=0)


def test_entropy_of_a_uniform_and_of_a_certain_row() -> None:
    certain = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    found = losses.entropy(torch.cat([torch.zeros(1, 4), certain]))
    torch.testing.assert_close(found, torch.tensor([4.0, 1.0]).log())
