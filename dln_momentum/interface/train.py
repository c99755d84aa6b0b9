"""Train one network or thousands, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dln_momentum.arrays import flag_of, integer_of, is_real, number_of
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import Engine, EngineOptions, Snapshot
from dln_momentum.engine.family import is_plain
from dln_momentum.engine.footprint import Footprint
from dln_momentum.engine.parallel import physical_cores
from dln_momentum.engine.problems import first_of, groups_of
from dln_momentum.errors import Checks, raise_if_any
from dln_momentum.extras import naming_extra
from dln_momentum.interface.arguments import Arguments, Data, arguments
from dln_momentum.interface.keywords import names_its_arguments
from dln_momentum.interface.records import Records
from dln_momentum.interface.run import Run
from dln_momentum.pace import Pace
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of
from dln_momentum.record_plan import RecordPlan
from dln_momentum.schedules import Schedule
from dln_momentum.start import Start
from dln_momentum.theory.initial_speed import gradient_velocity

Callback = Callable[[Snapshot], object]
"""Called with the state of all runs at every recorded step; what it returns is not read."""

MOST_TRAJECTORIES = 2**22
"""Numbers of a trajectory, records times runs times coordinates, up to which it is kept."""


@names_its_arguments
def train(
    problem: Data,
    start: Start | None = None,
    *,
    gamma: Any = None,
    beta: Any = None,
    lam: Any = None,
    eps: Any = None,
    gamma_u: Any = None,
    gamma_v: Any = None,
    method: str = "heavy_ball",
    schedule: Schedule | None = None,
    weight_decay: Any = 0.0,
    decoupled: bool = False,
    decay_until: int | None = None,
    dampening: Any = 0.0,
    kappa: Any = None,
    speed: float = 0.0,
    batch_size: int | None = None,
    sampling: str = "with_replacement",
    label_noise: float = 0.0,
    noise_until: int = 0,
    seed: Any = 0,
    max_steps: int = 100_000,
    tol: float = 1e-24,
    margin: float | None = None,
    gradient_tol: float | None = None,
    divergence_bound: float = 1e10,
    records: int = 200,
    trajectories: bool | None = None,
    curvature: bool = False,
    path_sums: str = "telescoped",
    backend: str = "auto",
    num_workers: int | None = None,
    callbacks: Iterable[Callback] | Callback = (),
    progress: bool = False,
) -> Run:
    r"""Train diagonal networks by MGD(gamma, beta), and record every quantity of the theory.

    .. math:: w_{k+1} = w_k - \gamma_k \nabla F(w_k) + \beta_k (w_k - w_{k-1})

    gamma, beta (or lam, eps, and so on), the start's parameters, the numbers of the schedule,
    weight_decay, dampening and seed may be arrays: they broadcast to one shape S of runs, which are
    trained together. A run ends as ``converged``, ``diverged`` or ``max_steps``; none of these is
    an error. The loss is that of the problem, the depth that of the start.

    Args:
        problem: the data, shared by all runs or with run dimensions that broadcast; a list of
            problems of one shape is an array of them.
        start: `uniform`, `gaussian`, `biased` or `Start(u, v)`; ``uniform(0.1)`` if left out.
        gamma, beta, lam, eps: a pair that determines the run: (gamma, beta), (lam, eps),
            (lam, beta), (lam, gamma) or (eps, beta). Without lam and eps, gamma is 0.01 and beta
            0.9 by default.
        gamma_u, gamma_v: step sizes of u and of v, in place of gamma = sqrt(gamma_u gamma_v).
        method: ``heavy_ball``, or ``nesterov`` with the gradient at w_k + beta_k (w_k - w_{k-1}).
        schedule: gamma_k and beta_k, one of `dln_momentum.schedules`; None for constant rates.
        weight_decay: omega >= 0.
        decoupled: False adds omega w to the gradient; True multiplies w by 1 - gamma_k omega before
            the step, as SGDW and AdamW do.
        decay_until: the last step with weight decay; None for all of them.
        dampening: tau in [0, 1): from the second step on, gradients are multiplied by 1 - tau.
        kappa: [d], coordinate i has the step size kappa_i gamma_k; None for ones.
        speed: initial speed w'(0) = -speed grad F(w_0); 0 is rest.
        batch_size: rows in a mini-batch; None for all rows at every step.
        sampling: ``with_replacement``, ``without_replacement`` or ``reshuffle``.
        label_noise: each target moves by + or - this much, at random, at the first
            ``noise_until`` steps.
        noise_until: number of steps with label noise.
        seed: of mini-batches and label noise, an integer or an array of them.
        max_steps: the largest number of steps.
        tol: a run has converged once its training loss is at or below this; checked every 10 steps.
        margin: of classification: it has converged too once its loss, at or below l(margin)/n,
            proves that every margin y_i <x_i, theta> is at least this.
        gradient_tol: it has converged too once its loss proves ||grad L(theta)||_2 to be at most
            this (see `EngineOptions.on`).
        divergence_bound: it has diverged once its loss exceeds this many times its first loss.
        records: the largest number of recorded steps, log-spaced.
        trajectories: whether to keep theta, Delta and S_+- of every coordinate at these steps; by
            default up to four million numbers each.
        curvature: whether to record the sharpness, the largest eigenvalue of the Hessian of F, and
            2 (1 + beta)/gamma; an eigenvalue problem of 2d unknowns a record and run.
        path_sums, backend: see `EngineOptions`.
        num_workers: cores to use; None for all physical cores.
        callbacks: functions, called with a `Snapshot` of all runs at every recorded step.
        progress: whether to show a bar.

    Returns:
        The runs, with NumPy arrays of shape S or S + [d].

    Raises:
        InputError: listing what is not allowed, before anything is computed.

    >>> import dln_momentum as dln
    >>> run = dln.train(dln.sparse(n=5, d=8, s=1), dln.uniform(0.1), gamma=0.02, beta=0.9)
    >>> run.status, run.theta.shape
    ('converged', (8,))
    >>> run.certify().kkt_residual < 1e-11
    True
    >>> runs = dln.train(dln.sparse(n=5, d=8, s=1), gamma=[0.01, 0.02], beta=[[0.5], [0.9]])
    >>> runs.steps.shape, runs.theta.shape
    ((2, 2), (2, 2, 8))
    """
    callbacks = tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    checks = Checks()
    checks.problems += [
        f"callbacks: {callback!r} must be a function of a Snapshot"
        for callback in callbacks
        if not callable(callback)
    ]
    speed = checks.passed(0.0, number_of, "speed", speed)
    label_noise = checks.passed(0.0, number_of, "label_noise", label_noise)
    noise_until = checks.passed(1, integer_of, "noise_until", noise_until, 0)
    curvature = checks.passed(False, flag_of, "curvature", curvature)
    shown = checks.passed(False, flag_of, "progress", progress)
    if trajectories is not None:
        trajectories = checks.passed(False, flag_of, "trajectories", trajectories)
    max_steps = checks.passed(1, integer_of, "max_steps", max_steps, 1)
    records = checks.passed(2, integer_of, "records", records, 2)
    plan = checks.passed(RecordPlan(1, 2), RecordPlan, max_steps, records)
    tolerances: dict[str, Any] = {
        "tol": tol,
        "margin": margin,
        "gradient_tol": gradient_tol,
        "divergence_bound": divergence_bound,
    }
    tolerances = {
        key: checks.passed(getattr(EngineOptions, key), number_of, key, value)
        for key, value in tolerances.items()
        if value is not None or key not in ("margin", "gradient_tol")
    }
    options = checks.passed(
        EngineOptions(),
        EngineOptions,
        backend=backend,
        path_sums=path_sums,
        num_workers=physical_cores() if num_workers is None else num_workers,
        **tolerances,
    )
    checks.problems += _errors(speed, label_noise, noise_until)
    settings = {
        "name": method,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "decoupled": decoupled,
        "decay_until": decay_until,
        "dampening": dampening,
        "kappa": kappa,
    }
    rates = {"gamma": gamma, "beta": beta, "lam": lam, "eps": eps}
    rates |= {"gamma_u": gamma_u, "gamma_v": gamma_v}
    given = checks.passed(None, arguments, problem, start, seed, settings, **rates)
    first, seeds = (problem, 0) if given is None else (first_of(given.problem), given.seed)
    if not isinstance(first, Problem):  # there is no number of rows to check the others against
        checks.raise_if_any()
    assert isinstance(first, Problem)
    n = first.n
    batches = checks.passed(None, BatchStream, n, batch_size, sampling, seeds)
    noise = checks.passed(None, LabelNoise, n, label_noise, noise_until, seeds)
    checks.raise_if_any()
    assert given is not None
    assert batches is not None
    R, d = given.w_plus.shape
    if trajectories is None:
        trajectories = len(plan.recorded) * R * d <= MOST_TRAJECTORIES
    raise_if_any(_size_errors(given, len(plan.recorded), path_sums, trajectories=trajectories))
    engine = Engine(
        given.problem,
        given.gamma,
        given.beta,
        given.w_plus,
        given.w_minus,
        previous=_previous(given, speed),
        batches=batches,
        label_noise=noise if label_noise else None,
        options=options,
        method=given.method,
    )
    recorded = Records(trajectories, curvature)

    def record() -> None:
        recorded.add(engine)
        if callbacks:
            snapshot = engine.snapshot()
            for callback in callbacks:
                callback(snapshot)

    record()
    pace = Pace(n * d * R)
    with _bar(max_steps, shown=shown) as move:
        for first, stop in plan.blocks(0, pace):
            if len(engine.running) == 0:
                break
            started = time.perf_counter()
            engine.advance_to(stop)
            pace.measured(engine.step - first, time.perf_counter() - started)
            move(engine.step)
            if stop == max_steps:
                engine.stop()
            if stop in plan.recorded or len(engine.running) == 0:
                record()
    engine.stop()
    snapshot, workers = engine.snapshot(), options.num_workers
    return Run(given.problem, snapshot, given.shape, recorded, given.method, workers)


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, and the function that moves it to a step; only one that is shown needs rich.

    Raises:
        InputError: without rich.
    """
    if not shown:
        yield lambda step: None
        return
    with naming_extra():
        from rich.progress import Progress
    with Progress() as bar:
        task = bar.add_task("steps", total=total)
        yield lambda step: bar.update(task, completed=step)


def _previous(given: Arguments, speed: float) -> tuple[Tensor, Tensor] | None:
    """w_0 = w_1 - eps w'(0) of w_+ and w_-, [R, d] each; None at rest."""
    if not speed:
        return None
    previous = torch.stack([given.w_plus, given.w_minus])
    eps = eps_of(given.gamma, given.beta)[:, None]
    for group in groups_of(given.problem):
        runs = group.places
        pair = given.w_plus[runs], given.w_minus[runs]
        depth = torch.as_tensor(given.method.depth, dtype=torch.float64)
        own = depth[runs] if depth.ndim else depth
        dw = gradient_velocity(group.problem, *pair, speed, own)
        previous[:, runs] -= eps[runs] * torch.stack(dw)
    return previous[0], previous[1]


def _errors(speed: float, label_noise: float, noise_until: int) -> Iterator[str]:
    """What nothing else checks."""
    if not is_real(speed):
        yield f"speed = {speed!r} must be a finite number; 0 is rest"
    if label_noise and not noise_until:
        yield f"noise_until = 0 must be >= 1 for label_noise = {label_noise!r}"


def _size_errors(
    given: Arguments, records: int, path_sums: str, *, trajectories: bool
) -> Iterator[str]:
    """What is wrong with runs whose records do not fit into memory."""
    first, runs = first_of(given.problem), len(given.gamma)
    sizes = {"n": first.n, "d": first.d, "data_sets": 0, "path_sums": path_sums}
    alone = Footprint(runs, **sizes, plain=is_plain(given.method, first))
    whole = replace(alone, records=records, trajectories=trajectories)
    kept = "trajectories = True" if trajectories else f"{runs} runs"
    yield from whole.errors(f"records = {records} with {kept}" if records > 2 else f"{runs} runs")
