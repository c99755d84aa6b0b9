"""The theorem for the method that a config asks for, on the run of the engine itself.

(docs/theory.md#one-theorem; not on the poster.)

Where the method is not heavy ball at constant rates, the statements about that are not evaluated;
these take their place. S_+- is summed from the iterates, so that a step that is not of the family
shows. A wrong step size, batch or schedule is of the family: the first iterates are compared with
those of a second program, `written_method`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.outputs.minimisers import certificate, potential
from dln_momentum.outputs.summary import balancedness_errors
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP, resolved_snapshots
from dln_momentum.verification.reference import (
    AMPLIFIED,
    DISPLACEMENT,
    PER_STEP,
    STEPS,
    backends,
    grown,
    random_signs,
)
from dln_momentum.verification.statement import Hypothesis, Statement, Times, equal
from dln_momentum.verification.written_method import WrittenMethod, written_method, written_sums

_IDENTITIES = (
    "Delta_(k+1) = |w_(+,1) w_(-,1)| exp(-(S_+ + S_-)) and the factor of decay",
    "u_(k+1)^(2-D) + v_(k+1)^(2-D) = that of step 1 plus (D-2) (S_u + S_v)",
)
NEAREST = 1e12
"""The largest of the variables over the smallest up to which S_+- is compared."""
CHUNK = 100_000
"""Rates that are evaluated at once."""


def of_own_method(m: Measurements) -> list[Statement]:
    """Delta from S_+-, and that theta is the minimiser on its level set, at every recorded step."""
    snapshots, part = resolved_snapshots(m)
    method, end = m.setting.method, snapshots[-1]
    name = f"{method.name}, schedule {method.schedule.name}"
    times = Times("k", torch.tensor([float(s.step) for s in snapshots]), part)
    needs = [Hypothesis("the run has finite steps that float64 resolves", end.step > 0, f"{part}")]
    spread = torch.stack([_resolution(m, s) for s in snapshots])
    size = torch.stack([_image_norm(s) for s in snapshots])
    return [
        equal(
            f"{name}: {_IDENTITIES[method.is_deep]}",
            6,
            needs,
            predicted=end.predicted_balancedness.sum(),
            measured=end.balancedness.sum(),
            error=torch.cat([balancedness_errors(s)["path_identity_error"] for s in snapshots]),
            tolerance=2 * spread,
            times=times,
        ),
        equal(
            f"{name}: theta_(k+1) is the minimiser on its own level set (KKT residual)",
            6,
            needs,
            error=torch.cat([certificate(s, m.problem)["kkt_residual"] for s in snapshots]),
            measured=certificate(end, m.problem)["kkt_residual"][0],
            # an error of the exponents moves every coordinate of the image by as much
            tolerance=m.problem.d**0.5 * spread / size + 64 * ULP,
            times=times,
        ),
    ]


def _image_norm(snapshot: Snapshot) -> Tensor:
    """||arcsinh(2 theta/Delta) - c||/2, which the KKT residual is relative to."""
    delta, c = potential(snapshot)
    return torch.linalg.vector_norm(torch.asinh(2 * snapshot.theta / delta) - c) / 2


def _resolution(m: Measurements, snapshot: Snapshot) -> Tensor:
    """Rounding of S_+-: an ulp of w a step, with the largest weight p_k of the horizon.

    p_k is at most the number of steps, and at most 1/(1-beta) of the largest beta. As in
    `recorded.rounding`, 10,000 steps are allowed for the nearest of many sign changes.
    """
    momentum, steps = m.momentum, snapshot.step
    gamma, beta = (torch.tensor([x]).double() for x in (momentum.gamma, momentum.beta))
    largest = 0.0
    for first in range(1, max(steps, 1) + 1, CHUNK):
        count = min(CHUNK, max(steps, 1) + 1 - first)
        found = m.setting.method.schedule.rates(gamma, beta, first, count)[1]
        largest = max(largest, float(found.max()))
    weight = min(max(steps, 1), 1 / (1 - largest))
    sums = snapshot.path_sums[:, 0].abs().max()
    # the forward form of S is the difference of two sums, each of which may be as large or larger
    return ULP * (weight * (steps + 10_000) + 16 * sums)


def the_first_steps(m: Measurements) -> list[Statement]:
    """Iterates, loss, S_+- and the decay of either backend against the method as written."""
    run, method = written_method(m.setting, m.momentum, STEPS[-1]), m.setting.method
    steps, growth = _compared(m, run)
    name = f"{method.name}, schedule {method.schedule.name}"
    needs = [Hypothesis("float64 decides the first step", bool(steps), f"{len(steps)} steps")]
    if not steps:
        return [equal(f"{name}: the first steps of the engine", 3, needs, tolerance=0.0)]
    tolerance = torch.tensor([PER_STEP * ULP * (k + 1) * growth[k] for k in steps])
    found = []
    # u -+ v of layers of nearly one size has few digits, and their logarithms have none
    kept = [k for k in steps if _spread(run, k, m) <= NEAREST]
    resolved = Hypothesis("u + v and u - v of the layers have digits", bool(kept), f"k in {kept}")
    for backend in backends():
        engine, errors = m.engine(backend=backend), []
        for k in steps:
            engine.advance(k - engine.step)
            layers = engine.variables(slice(None))[0][:, 0].numpy()
            snapshot = engine.snapshot()
            assert isinstance(snapshot, FamilySnapshot)
            errors.append(_errors(run, k, snapshot, layers, m))
        for place, what in enumerate(("w_k", "S_+-, its decay, G and the loss")):
            text = f"{name}: {what} of the engine ({backend}) are those of the method as written"
            number = len(steps) if place == 0 else len(kept)
            if number == 0:
                found.append(equal(text, 3, [*needs, resolved], tolerance=0.0))
                continue
            error = torch.tensor([pair[place] for pair in errors[:number]], dtype=torch.float64)
            times = Times(
                "k", torch.tensor(steps[:number], dtype=torch.float64),
                f"for k <= {steps[number - 1]}",
            )  # fmt: skip
            found.append(
                equal(text, 3, needs, measured=error[-1], error=error,
                      tolerance=tolerance[:number], times=times)
            )  # fmt: skip
    return found


def _variables(run: WrittenMethod, k: int, m: Measurements) -> np.ndarray:
    """The variables of the theorem up to w_{k+1}: weighted w_+-, or u and v where D > 2."""
    ratio = float(torch.as_tensor(m.setting.method.layer_ratio).flatten()[0])
    path = np.stack(run.layers[1 : k + 2])
    if m.setting.method.is_deep:
        return path
    u, v = ratio**0.25 * path[:, 0], path[:, 1] / ratio**0.25
    return np.stack([u + v, u - v], 1)


def _spread(run: WrittenMethod, k: int, m: Measurements) -> float:
    """The largest of the variables over the smallest, by which relative errors are larger."""
    sizes = np.abs(_variables(run, k, m))
    return float(sizes.max() / sizes.min()) if sizes.min() > 0 else np.inf


def _compared(m: Measurements, run: WrittenMethod) -> tuple[list[int], np.ndarray]:
    """The compared steps, before rounding is amplified too far, and the amplification."""
    displaced = DISPLACEMENT * random_signs(m.problem.d)
    other = written_method(m.setting, m.momentum, len(run.layers) - 2, displaced)
    growth = grown(run.layers[1:], other.layers[1:])
    found = []
    for k in STEPS:
        fine = k < len(growth) and growth[k] < AMPLIFIED
        if not fine or not max(run.loss[: k + 1]) < 1e9 * max(run.loss[0], 1e-300):
            break
        found.append(k)
    return found, growth


def _errors(
    run: WrittenMethod, k: int, s: FamilySnapshot, layers: np.ndarray, m: Measurements
) -> tuple[float, float]:
    """Errors of the iterates and of the sums, relative to their size and that of their terms."""
    method, X = m.setting.method, m.problem.X.numpy()
    ratio, depth = float(s.layer_ratio[0]), float(torch.as_tensor(method.depth).flatten()[0])
    path = np.stack(run.layers[1 : k + 2])
    iterates = np.abs(layers - path[-1]).max() / np.abs(path[-1]).max()
    p = np.array(run.weights(k))
    with np.errstate(all="ignore"):
        sums = written_sums(run, k, ratio, depth)
    sizes = np.abs(_variables(run, k, m))
    gradients = np.tensordot(p, np.array(run.gradients[:k]), 1)
    if method.decoupled:
        decay = -np.log1p(-np.array(run.eta[:k])).sum()
    else:
        decay = float(p @ np.array(run.decay[:k]))
    # a relative error of w_+- is that of u or v over the smaller of the two, and p_k times that
    near = min(_spread(run, k, m), NEAREST) * p.max()
    of_potential = float(sizes.min()) ** (2 - depth)
    largest = np.abs(np.array(run.gradients[:k])).max()
    squares = max(float((w * w).sum()) for w in path)
    norm = float(np.linalg.norm(X, 2)) * squares ** (depth / 2) * depth
    # the rounding of a residual is that of X theta, and gamma_k is below its run's largest
    scale_g = p.sum() * (largest + norm * float(np.abs(X).max()))
    pairs = (
        (s.exponents[:, 0].numpy(), sums, near * of_potential * (1 + np.abs(sums).max())),
        (s.weighted_gradient_sum[0].numpy(), gradients, scale_g),
        (float(s.decay[0]), decay, 1 + abs(decay)),
        (float(s.loss[0]), run.loss[k], max(run.loss[: k + 1]) + norm * (1 + norm)),
    )
    return float(iterates), float(max(np.abs(a - b).max() / c for a, b, c in pairs))
