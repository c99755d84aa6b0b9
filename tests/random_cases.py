"""Cases for dln-verify that are functions of an index alone: the same ones on every machine.

Run many of them without pytest: ``python -m tests.random_cases FIRST LAST``.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from dln_momentum import DiagonalLinearNet, Momentum, sparse
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.data.sampling import SAMPLINGS
from dln_momentum.verification import Measurements, Setting, Statement, Verdict
from dln_momentum.verification.statements import (
    of_gradient_flow,
    of_iterates,
    of_momentum_flow,
    of_other_networks,
    of_small_lambda,
    of_the_engine,
    of_the_family,
    of_the_scheme,
)

MAX_STEPS = 20_000
"""Long enough for most runs to converge; one that does not is judged along its path."""


def random_case(index: int) -> Setting:
    """Problem, start, rates, batches, noise and speed, drawn from the generator of this index.

    lambda spans 1e-2 to 10 and alpha 1e-2 to 3, so that runs below the threshold, with sign
    changes, and divergent ones are among them. A third are uniform starts at the full batch.
    """
    rng = np.random.default_rng(index)
    n, extra = int(rng.integers(2, 6)), int(rng.integers(1, 5))
    seed = int(rng.integers(2**31))
    problem = sparse(n, n + extra, 2, seed=seed)
    alpha, lam = 10 ** rng.uniform(-2, 0.5), 10 ** rng.uniform(-2, 1)
    momentum = Momentum.from_pair(lam=lam, beta=float(rng.uniform(0, 0.98)))
    kind = index % 6
    if kind == 3:
        net = DiagonalLinearNet.gaussian(problem.d, alpha, seed=seed)
    else:
        net = DiagonalLinearNet.uniform(problem.d, alpha)
    w_plus, w_minus = net.w_plus.detach(), net.w_minus.detach()
    sampling = SAMPLINGS[index // 6 % len(SAMPLINGS)]
    batches = BatchStream(n, max(1, n // 2), sampling, seeds=seed) if kind == 4 else None
    noise = LabelNoise(n, 0.1, 500, seeds=seed) if kind == 5 else None
    speed = torch.from_numpy(0.1 * alpha * rng.standard_normal((2, problem.d)))
    return Setting(
        problem, w_plus, w_minus, momentum=momentum, batches=batches, label_noise=noise,
        max_steps=MAX_STEPS, velocity=(speed[0], speed[1]) if kind == 2 else None,
    )  # fmt: skip


def violations(index: int) -> list[Statement]:
    """The statements that the case of this index violates.

    The orders in eps, which take half of the time, are measured in a fourth of the cases.
    """
    measurements = Measurements(random_case(index))
    parts = (
        of_gradient_flow, of_momentum_flow, of_small_lambda, of_the_engine, of_iterates,
        of_the_family, of_other_networks,
    )  # fmt: skip
    if index % 4 == 0:
        parts = (of_the_scheme, *parts)
    found = (statement for part in parts for statement in part(measurements))
    return [statement for statement in found if statement.verdict is Verdict.VIOLATED]


if __name__ == "__main__":
    first, last = (int(argument) for argument in sys.argv[1:3])
    torch.set_num_threads(1)
    for number in range(first, last):
        try:
            for statement in violations(number):
                print(number, statement, flush=True)
        except Exception as error:  # a crash is what this looks for
            print(number, "CRASH", repr(error), flush=True)
        if number % 50 == 0:
            print("done", number, flush=True)
