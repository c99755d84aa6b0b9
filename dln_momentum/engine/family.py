"""What the general kernels need to know of a method and a loss, as codes and tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.method import Method
from dln_momentum.per_run import tensor_like
from dln_momentum.problem import Problem

HEAVY_BALL, NESTEROV, POWER = 0, 1, 2
"""Kinds of update: heavy ball on theta = u v, Nesterov on it, heavy ball on u^D - v^D."""

SQUARED, LOGISTIC, EXPONENTIAL = 0, 1, 2
"""Losses of the predictions; the last two take labels -1 and +1."""

LOSSES = {"squared": SQUARED, "logistic": LOGISTIC, "exponential": EXPONENTIAL}


@dataclass(frozen=True, eq=False)
class Family:
    """Which member of the family the kernels advance, alike for all runs but for the depth."""

    kind: int
    """one of `HEAVY_BALL`, `NESTEROV`, `POWER`"""
    loss: int
    """one of `SQUARED`, `LOGISTIC`, `EXPONENTIAL`"""
    decoupled: bool
    """whether the weight decay is"""
    depth: Tensor
    """D of each run, [R]"""

    @classmethod
    def of(cls, method: Method, loss: str, gamma: Tensor) -> Family:
        """The codes of a method and a loss, for runs of step sizes gamma [R]."""
        kind = NESTEROV if method.name == "nesterov" else POWER if method.is_deep else HEAVY_BALL
        depth = tensor_like(method.depth, gamma.device).expand_as(gamma).contiguous()
        return cls(kind, LOSSES[loss], method.decoupled and method.decays, depth)

    @property
    def inner(self) -> float:
        """What the stored iterates are times in theta = w_+^D - w_-^D: 1/2 for theta = u v."""
        return 1.0 if self.kind == POWER else 0.5


def is_plain(method: Method, problem: Problem) -> bool:
    """Whether runs are heavy ball at constant rates on the squared loss, which has its own kernels.

    The general kernels carry more of every run.
    """
    return method.is_plain and problem.loss_name == "squared"


def slope(loss: int, predicted: Tensor, target: Tensor, n: int) -> Tensor:
    """The derivative of the loss in the predictions, in the scale of 1/sqrt(n), [..., n].

    Args:
        loss: its code.
        predicted: (X theta - y)/sqrt(n) for the squared loss, else X theta/sqrt(n).
        target: the labels of the others.
        n: rows.
    """
    if loss == SQUARED:
        return predicted
    root = n**0.5
    margin = target * predicted * root
    size = torch.sigmoid(-margin) if loss == LOGISTIC else torch.exp(-margin)
    return -target * size / root


def mean_loss(loss: int, predicted: Tensor, target: Tensor) -> Tensor:
    """The loss of each run, [...]; arguments as in `slope`."""
    if loss == SQUARED:
        return predicted.square().sum(-1) / 2
    margin = target * predicted * predicted.shape[-1] ** 0.5
    if loss == LOGISTIC:
        return torch.nn.functional.softplus(-margin, threshold=50).mean(-1)
    return torch.exp(-margin).mean(-1)
