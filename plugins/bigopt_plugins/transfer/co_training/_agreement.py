"""Terms by which two models teach each other."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from bigopt.vocabulary.task import Task


def output_agreement(task: Task, first: Tensor, second: Tensor) -> Tensor:
    """Each model's distance to the other's answers, which it takes as given: ``KL(p₂ ‖ p₁) + KL(p₁ ‖ p₂)``.

    Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384, eq. 4 and 5); for regression the squared distances.

    Args:
        task: tells the two apart.
        first: outputs ``(N, K)``.
        second: outputs ``(N, K)``.
    """
    return task.soft_loss(first, second.detach(), 1.0) + task.soft_loss(second, first.detach(), 1.0)


def feature_agreement(first: Tensor, second: Tensor, bridge: nn.Module) -> Tensor:
    """``mean (1 - cos(bridge(first), second))``; both models and the bridge between their spaces get a gradient.

    Args:
        first: features ``(N, …)``, flattened.
        second: features ``(N, …)``, flattened.
        bridge: from the first's size to the second's.
    """
    return 1 - functional.cosine_similarity(bridge(first.flatten(1)), second.flatten(1), dim=1).mean()


def taught(logits: Tensor, answers: Tensor, threshold: float) -> Tensor:
    """``1/M Σ 1(max p ≥ threshold) · CE(logits, argmax p)``: one model learns the other's confident answers.

    The step of co-training (Blum and Mitchell 1998), taken on every batch instead of once a round.

    Args:
        logits: of the model that learns ``(M, K)``.
        answers: of the one that teaches ``(M, K)``; no gradient goes there.
        threshold: confidence from which an answer is a label.
    """
    confidence, labels = answers.detach().softmax(1).max(1)
    chosen = (confidence >= threshold).to(logits.dtype)
    return (chosen * functional.cross_entropy(logits, labels, reduction="none")).mean()
