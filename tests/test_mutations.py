"""Plausible bugs, planted one at a time, and the statements of dln-verify that must find them.

Each row patches a function of the package, evaluates a part of the statements and names those that
must be VIOLATED. Together the rows violate every statement of the theory.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Engine, FlowPath, Momentum, Snapshot, sparse
from dln_momentum import flows as flow_package
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import torch_kernel
from dln_momentum.engine.cpu import passes
from dln_momentum.engine.random_inputs import RandomInputs
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.flows import contour, quadrature
from dln_momentum.flows.coefficients import Coefficients
from dln_momentum.flows.path import Path
from dln_momentum.flows.quadrature import SummedIntegrals
from dln_momentum.outputs import flow_summary, minimisers, summary
from dln_momentum.theory import (
    balances,
    continuous_bias,
    coordinate_rates,
    curvature,
    depth,
    discrete_bias,
    entropy,
    interpolators,
    local_rates,
    losses,
    max_margin,
    nesterov,
    schedules,
    small_lambda,
    three_point,
    trajectory,
    weight_decay,
)
from dln_momentum.theory.trajectory import Trajectory, Weights
from dln_momentum.verification import (
    Measurements,
    Setting,
    Statement,
    Verdict,
    discretisation,
    statements,
)

# the package's attribute of that name is the function
module = sys.modules["dln_momentum.verification.statements"]

PROBLEM = sparse(5, 8, 1, seed=0)
BIASED = DiagonalLinearNet.gaussian(8, 0.3, seed=1)
"""theta_0 != 0 and Delta_0 uneven: a uniform start hides what is wrong with either."""

Patch = pytest.MonkeyPatch


def case_of(net: DiagonalLinearNet, **given: Any) -> Setting:
    return Setting(PROBLEM, net.w_plus.detach(), net.w_minus.detach(), **given)


UNIFORM = DiagonalLinearNet.uniform(8, 0.1)
CASES: dict[str, Callable[[], Setting]] = {
    # two sign changes
    "momentum": lambda: case_of(UNIFORM, momentum=Momentum(0.01, 0.9)),
    # below the threshold: no sign changes
    "small": lambda: case_of(
        UNIFORM, momentum=Momentum.from_pair(lam=0.002, eps=0.001), max_steps=200_000
    ),
    # no sign changes, and both the run and the flow converge soon
    "quiet": lambda: case_of(UNIFORM, momentum=Momentum(0.02, 0.5)),
    "biased": lambda: case_of(BIASED, momentum=Momentum(0.01, 0.5)),
    "batches": lambda: case_of(
        UNIFORM, momentum=Momentum(0.01, 0.9),
        batches=BatchStream(5, 2, "with_replacement", seeds=0),
        label_noise=LabelNoise(5, 0.1, 100, seeds=0), max_steps=1000,
    ),
}  # fmt: skip


HOSTILE: dict[str, Callable[[], Setting]] = {
    "a start of 1e-10": lambda: case_of(DiagonalLinearNet.uniform(8, 1e-10), lam=1.0),
    "an uneven start of 10": lambda: case_of(DiagonalLinearNet.gaussian(8, 10.0, seed=1), lam=0.01),
}
"""At the ends of what a flow is asked for; the faults of flows are planted here too."""


@functools.cache
def intact(name: str) -> Measurements:
    """The runs of a case as they are, for faults in what is made of them."""
    measurements = Measurements((CASES | HOSTILE)[name]())
    if name != "batches":
        _ = measurements.momentum_path, measurements.gradient_path, measurements.curvature
        _ = measurements.summed_integrals, measurements.explicit_gradient_path
    if name != "biased":
        _ = measurements.snapshots
    if name == "quiet":
        _ = measurements.last_losses
    if name == "momentum":
        _ = measurements.first_iterates, measurements.contour
    return measurements


def evidence_for(name: str, anew: tuple[str, ...]) -> Measurements:
    """The same measurements, with some of its runs to be computed again."""
    measurements = Measurements(intact(name).setting)
    kept = {key: value for key, value in vars(intact(name)).items() if key not in anew}
    vars(measurements).update(kept)
    # what a snapshot or a path has derived under one fault must not be there under the next
    for key, value in kept.items():
        if key == "snapshots":
            vars(measurements)[key] = [dataclasses.replace(s) for s in value]
        elif isinstance(value, Path):
            vars(measurements)[key] = dataclasses.replace(value)
    return measurements


def violated(found: Iterator[Statement]) -> list[str]:
    return [statement.name for statement in found if statement.verdict is Verdict.VIOLATED]


def everywhere(patch: Patch, original: Callable, replacement: Callable) -> None:
    """Replace a function in every module of the package that has imported it."""
    for name, loaded in list(sys.modules.items()):
        if name.startswith("dln_momentum"):
            for key, value in list(vars(loaded).items()):
                if value is original:
                    patch.setattr(loaded, key, replacement)


def scaled(patch: Patch, original: Callable, factor: float) -> None:
    everywhere(patch, original, lambda *a, **k: factor * original(*a, **k))


def replaced(patch: Patch, original: Callable, change: Callable[[Any], Any]) -> None:
    everywhere(patch, original, lambda *a, **k: change(original(*a, **k)))


def with_property(patch: Patch, owner: type, name: str, value: Callable[[Any], Any]) -> None:
    patch.setattr(owner, name, property(value))


# ---- faults that are more than a factor


def from_the_wrong_side(patch: Patch) -> None:
    exact = flow_package.gradient_flow

    def wrong(problem: Any, plus: Tensor, minus: Tensor, *rest: Any, **keys: Any) -> FlowPath:
        return exact(problem, plus, plus, *rest, **keys)

    patch.setattr("dln_momentum.verification.measurements.gradient_flow", wrong)


def without_theta_0(patch: Patch) -> None:
    patch.setattr(flow_summary, "log_init", lambda *tensors: torch.zeros_like(tensors[0]))


def speed_with_the_other_sign(patch: Patch) -> None:
    exact = continuous_bias.limit_bias

    def wrong(path: Path) -> Any:
        opposite = dataclasses.replace(path, dw=-path.dw)  # type: ignore[type-var]
        return exact(opposite)

    everywhere(patch, exact, wrong)


def from_delta_itself(patch: Patch) -> None:
    def wrong(problem: Any, balancedness: Tensor, **keys: Any) -> FlowPath:
        return flow_package.gradient_flow(problem, balancedness, balancedness, np.inf, **keys)

    everywhere(patch, flow_package.effective_flow, wrong)


def without_the_absolute_value(patch: Patch) -> None:
    """What ln(w_{k+1}/w_k) without |.| makes of S: nan from the first sign change on."""
    exact = Engine.snapshot

    def wrong(engine: Engine, *runs: Any) -> Snapshot:
        s = exact(engine, *runs)
        sums = s.path_sums_from_iterates
        changed = s.w * s.w_start < 0
        assert sums is not None
        return dataclasses.replace(s, path_sums_from_iterates=torch.where(changed, torch.nan, sums))

    patch.setattr(Engine, "snapshot", wrong)


def drawn_wrongly(noise_factor: float, shift: int) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        exact = RandomInputs._drawn

        def wrong(draws: RandomInputs, first: int, last: int, runs: Tensor) -> Any:
            batches, _ = exact(draws, first + shift, last + shift, runs)
            noise = exact(draws, first, last, runs)[1]
            return batches, None if noise is None else noise_factor * noise

        patch.setattr(RandomInputs, "_drawn", wrong)

    return plant


def gamma_off(patch: Patch) -> None:
    exact = ScaledProblem.of.__func__  # type: ignore[attr-defined]

    def wrong(cls: type, groups: Any, gamma: Tensor, *rest: Any) -> list[ScaledProblem]:
        return exact(cls, groups, 1.001 * gamma, *rest)

    patch.setattr(ScaledProblem, "of", classmethod(wrong))


def swapped_integrals(patch: Patch) -> None:
    exact = quadrature.quadrature_path_integrals
    everywhere(patch, exact, lambda *given: exact(*given).flip(0))


def negated_integrals(patch: Patch) -> None:
    exact = continuous_bias.path_integrals
    everywhere(patch, exact, lambda path: -exact(path))


def doubled_quadrature(patch: Patch) -> None:
    def change(s: SummedIntegrals) -> SummedIntegrals:
        return dataclasses.replace(s, integrals=2 * s.integrals)

    replaced(patch, quadrature.summed_path_integrals, change)


def other_contour(patch: Patch) -> None:
    def change(c: contour.ContourIntegrals) -> contour.ContourIntegrals:
        return dataclasses.replace(c, integrals=1.001 * c.integrals, zeros=c.zeros + 1)

    replaced(patch, contour.contour_integrals, change)


def other_weight(patch: Patch) -> None:
    """P with an error of 1 %: it no longer solves its equation."""
    patch.setattr(Coefficients, "weight", lambda c, t: 1.01 * c._weight(t))


def dissipated(factor: float) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        exact = Measurements.momentum_path.func

        def wrong(m: Measurements) -> FlowPath:
            path = exact(m)
            return dataclasses.replace(path, dissipated=factor * path.dissipated)

        found = functools.cached_property(wrong)
        found.__set_name__(Measurements, "momentum_path")
        patch.setattr(Measurements, "momentum_path", found)

    return plant


def rates_of_the_wrong_momentum(patch: Patch) -> None:
    exact = discretisation.reference_iterates

    def wrong(problem: Any, u: Tensor, v: Tensor, gamma: float, beta: float) -> Any:
        return exact(problem, u, v, 1.01 * gamma, beta)

    patch.setattr("dln_momentum.flows.discretisation.reference_iterates", wrong)


def beta_not_accelerated(patch: Patch) -> None:
    def wrong(momentum: Momentum, rho: float) -> Momentum:
        return Momentum(rho * momentum.gamma, momentum.beta)

    patch.setattr(Momentum, "accelerated", wrong)


def other_divergence(patch: Patch) -> None:
    exact = three_point.three_point_sides

    def wrong(a: Tensor, b: Tensor, c: Tensor, balancedness: Tensor) -> Any:
        left, right = exact(a, b, c, balancedness)
        return 1.01 * left + 0.01 * entropy.bregman_divergence(a, c, balancedness), right

    everywhere(patch, exact, wrong)


def l2_instead_of_l1(patch: Patch) -> None:
    exact, other = interpolators.basis_pursuit, interpolators.least_norm
    everywhere(patch, exact, lambda X, y: other(X, y))


def without_weights(patch: Patch) -> None:
    exact = interpolators.least_norm
    everywhere(patch, exact, lambda X, y, weights=None: exact(X, y))


def gradients_of_the_text(patch: Patch) -> None:
    """Delta_0 exp(-2 lambda int grad L), without the square."""
    everywhere(
        patch,
        small_lambda.small_lambda_balancedness,
        lambda path, lam: path.balancedness[0] * torch.exp(-2 * lam * path.G[-1]),
    )


def of_summary(name: str, change: Callable[[dict], dict]) -> Callable[[Patch], None]:
    """A function of `summary` or `minimisers` that returns scalars, some of them changed."""

    def plant(patch: Patch) -> None:
        exact = getattr(minimisers if hasattr(minimisers, name) else summary, name)
        everywhere(patch, exact, lambda *given: (found := exact(*given)) | change(found))

    return plant


# ---- the table


@dataclass(frozen=True)
class Fault:
    """A planted bug, where it is looked for, and the statements that must find it."""

    name: str
    case: str
    part: str
    plant: Callable[[Patch], None]
    caught: tuple[str, ...]
    anew: tuple[str, ...] = ()


ITERATES = ("MGD: w_k of the engine (numba)", "MGD: w_k of the engine (torch)")
SUMMARY = ("MGD: summarise and Snapshot (numba)", "MGD: summarise and Snapshot (torch)")
FLOW_SUMMARY = ("MGF: flow_summary and FlowPath",)
GF = ("gradient_path", "explicit_gradient_path", "effective_path")
RUN = ("snapshots",)
engine, scheme, iterates = "of_the_engine", "of_the_scheme", "of_iterates"
family = "of_the_family"
gradient, momentum_part, small = "of_gradient_flow", "of_momentum_flow", "of_small_lambda"
changing, geometry = "of_changing_flows", "of_curvature"
networks = "of_other_networks"

FAULTS = [
    Fault("gradient flow from (w_+, w_+)", "biased", gradient, from_the_wrong_side,
          ("GF: theta_t", "GF: theta_inf"), GF),
    Fault("grad psi without its half", "momentum", gradient,
          lambda p: scaled(p, entropy.mirror_map, 2.0), ("GF: grad psi", "psi: ")),
    Fault("psi twice", "momentum", gradient,
          lambda p: scaled(p, entropy.hyperbolic_entropy, 2.0), ("psi: ",)),
    Fault("D twice", "momentum", gradient,
          lambda p: scaled(p, entropy.bregman_divergence, 2.0), ("psi: ",)),
    Fault("effective flow from Delta", "momentum", gradient, from_delta_itself,
          ("GF from u = sqrt(Delta_inf)",), GF),
    Fault("basis pursuit of the l2 norm", "momentum", gradient, l2_instead_of_l1,
          ("argmin ||theta||_1",)),
    Fault("least norm without weights", "biased", gradient, without_weights,
          ("argmin sum theta^2/Delta_0",)),
    Fault("gamma of the compared iterates", "momentum", scheme, rates_of_the_wrong_momentum,
          ("MGD(gamma, beta) follows MGF(lambda)", "MGD(gamma, beta) follows MGF(lambda_KS)")),
    Fault("an acceleration that keeps beta", "momentum", scheme, beta_not_accelerated,
          ("rho^2 gamma",)),
    Fault("dissipation too small", "momentum", momentum_part, dissipated(0.9),
          ("MGF: E_0 - E_t",), ("momentum_path",)),
    Fault("dissipation too large", "momentum", momentum_part, dissipated(3.0),
          ("MGF: int ||w'||^2 <=",), ("momentum_path",)),
    Fault("I_+- twice", "momentum", momentum_part, doubled_quadrature,
          ("MGF: I_+- = lambda int", "MGF: Delta_t", "MGF: Delta_inf = ", "MGF: KKT",
           "MGF: theta_t", "MGF: theta_inf = argmin D", "MGF: limit_bias"), ("summed_integrals",)),
    Fault("left-over speed added", "momentum", momentum_part, speed_with_the_other_sign,
          ("MGF: limit_bias",)),
    Fault("I_+- negative", "momentum", momentum_part, negated_integrals, ("MGF: I_+- grows",)),
    Fault("I_+ and I_- swapped in b", "quiet", momentum_part, swapped_integrals,
          ("MGF: lambda z'' + z'",)),
    Fault("a divergence off by 1 %", "quiet", momentum_part, other_divergence,
          ("MGF: D(theta*",)),
    Fault("Delta twice", "quiet", momentum_part,
          lambda p: with_property(p, Trajectory, "balancedness",
                                  lambda t: 2 * (t.w[0] * t.w[1]).abs()),
          ("MGF: Delta_inf < Delta_0", "MGF: Delta_t")),
    Fault("a minimiser off by 1 %", "quiet", momentum_part,
          lambda p: scaled(p, minimisers.minimiser, 1.01),
          ("MGF: theta_inf = argmin psi", "MGF: theta_inf = argmin D", "MGF: theta_t")),
    Fault("theta of runs and flows, in a flow", "quiet", momentum_part,
          lambda p: with_property(p, Weights, "theta", lambda s: s.w[0] ** 2 - s.w[1] ** 2),
          (*FLOW_SUMMARY, "MGF: KKT", "MGF: theta_t")),
    Fault("Delta of runs and flows without |.|, in a flow", "momentum", momentum_part,
          lambda p: with_property(p, Weights, "balancedness", lambda s: s.w[0] * s.w[1]),
          FLOW_SUMMARY),
    Fault("Delta_0 of runs and flows, in a flow", "quiet", momentum_part,
          lambda p: with_property(p, Trajectory, "balancedness_start",
                                  lambda t: 1.01 * (t.w_start[0] * t.w_start[1]).abs()),
          ("MGF: Delta_t", "MGF: Delta_inf = ", *FLOW_SUMMARY)),
    Fault("c of runs and flows, in a flow", "quiet", momentum_part,
          lambda p: with_property(p, Trajectory, "log_init",
                                  lambda t: t.exponents_with_boundary.diff(dim=0)[0] / 2),
          ("MGF: KKT", "MGF: theta_t", *FLOW_SUMMARY)),
    Fault("the formula of theta, in a flow", "momentum", momentum_part,
          lambda p: scaled(p, trajectory.theta_of, 1.01), FLOW_SUMMARY),
    Fault("flow summary without theta_0", "biased", momentum_part, without_theta_0, FLOW_SUMMARY),
    Fault("Delta of a path without |.|", "momentum", momentum_part,
          lambda p: with_property(p, Path, "balancedness", lambda f: f.w_plus * f.w_minus),
          FLOW_SUMMARY),
    Fault("v of a path", "momentum", momentum_part,
          lambda p: with_property(p, Path, "v", lambda f: (f.w_plus + f.w_minus) / 2),
          FLOW_SUMMARY),
    Fault("energy of a path without 1/2", "momentum", momentum_part,
          lambda p: with_property(
              p, Path, "energy",
              lambda f: f.loss + f.lam / 2 * (f.dw_plus**2 + f.dw_minus**2).sum(-1)),
          (*FLOW_SUMMARY, "MGF: E_0 - E_t")),
    *(Fault(f"the threshold times {factor:g}", "momentum", small,
            lambda p, factor=factor: scaled(p, small_lambda.lambda_threshold, factor),
            ("min Delta_0/(2 F(w_0))",)) for factor in (2.0, 4.0, 0.5)),
    Fault("the threshold times 1000", "momentum", small,
          lambda p: scaled(p, small_lambda.lambda_threshold, 1e3),
          ("min Delta_0/(2 F(w_0))", "MGF: Delta_t >= ")),
    Fault("the drift's bound twice", "momentum", small,
          lambda p: scaled(p, small_lambda.balance_drift_bound, 2.0), ("min Delta_0/(2 F(w_0))",)),
    Fault("the drift's bound over 1000", "momentum", small,
          lambda p: scaled(p, small_lambda.balance_drift_bound, 1e-3),
          ("MGF: sum_i |q",)),
    Fault("grad L for its square", "small", small, gradients_of_the_text,
          ("MGF: ln(Delta_inf/Delta_0)",)),
    Fault("the discrete bound twice", "momentum", small,
          lambda p: scaled(p, small_lambda.discrete_drift_bound, 2.0), ("M of a step",)),
    Fault("the discrete bound over 1000", "momentum", small,
          lambda p: scaled(p, small_lambda.discrete_drift_bound, 1e-3), ("MGD: sum_i |q",)),
    Fault("the discrete threshold times 1000", "momentum", small,
          lambda p: scaled(p, small_lambda.discrete_threshold, 1e3), ("MGD: Delta_k > 0",)),
    Fault("M of a step off by 1 %", "momentum", small,
          lambda p: scaled(p, small_lambda.descent_modulus, 1.01), ("M of a step",)),
    Fault("another contour", "momentum", momentum_part, other_contour,
          ("MGF: Re int lambda", "MGF: Im int lambda"), ("contour",)),
    Fault("P off by 1 %", "momentum", changing, other_weight,
          ("b/t flow: I_+-", "b/t flow: u^2", "annealed flow: I_+-", "annealed flow: u^2",
           "b/t flow: KKT", "annealed flow: KKT"), ("changing_paths",)),
    Fault("the Hessian off by 1 %", "quiet", geometry,
          lambda p: scaled(p, curvature.hessian_product, 1.01), ("Hessian of F in closed form",)),
    Fault("the sharpness times 1000", "quiet", geometry,
          lambda p: scaled(p, curvature.sharpness, 1e3), ("MGD: the sharpness",)),
    Fault("curvatures at the minimum", "quiet", geometry,
          lambda p: scaled(p, local_rates.curvatures_at_minimum, 1.2),
          ("Hessian of F at theta_inf", "MGD: contraction")),
    Fault("gamma of the kernels", "momentum", engine, gamma_off, ITERATES),
    Fault("batches of the next step", "batches", engine, drawn_wrongly(1.0, 1), ITERATES),
    Fault("label noise twice", "batches", engine, drawn_wrongly(2.0, 0), ITERATES),
    Fault("batch weights of the torch kernel", "batches", engine,
          lambda p: scaled(p, torch_kernel.row_weights, 1.5),
          ITERATES[1:]),
    Fault("r(z) of the torch kernel", "momentum", engine,
          lambda p: scaled(p, discrete_bias.path_sum_increment, 1.01),
          ("MGD: S_+-, G, sum dw_+ dw_-, loss and sign changes (torch, direct)",)),
    Fault("the telescoped sum of the torch kernel", "momentum", engine,
          lambda p: p.setattr("dln_momentum.engine.torch_kernel.telescoped_increment",
                              lambda w, after, beta: (after - w) / w),
          ("MGD: S_+-, G, sum dw_+ dw_-, loss and sign changes (torch, telescoped)",)),
    Fault("the logarithm of the telescoped sum", "momentum", engine,
          lambda p: scaled(p, discrete_bias.telescoped_path_sums, 1.01),
          ("MGD: S_+-, G, sum dw_+ dw_-, loss and sign changes (numba, telescoped)",)),
    Fault("r(z) without |.|", "momentum", engine, without_the_absolute_value,
          ("MGD: S_+-, G, sum dw_+ dw_-, loss and sign changes (numba, direct)",)),
    Fault("theta of runs and flows", "momentum", engine,
          lambda p: with_property(p, Weights, "theta", lambda s: s.w[0] ** 2 - s.w[1] ** 2),
          SUMMARY),
    Fault("Delta of runs and flows without |.|", "momentum", engine,
          lambda p: with_property(p, Weights, "balancedness", lambda s: s.w[0] * s.w[1] + 1e-6),
          SUMMARY),
    Fault("the formula of theta", "momentum", engine,
          lambda p: scaled(p, trajectory.theta_of, 1.01), SUMMARY),
    Fault("the formula of Delta", "momentum", engine,
          lambda p: scaled(p, trajectory.balancedness_of, 1.01), SUMMARY),
    Fault("v of a snapshot", "momentum", engine,
          lambda p: with_property(p, Snapshot, "v", lambda s: (s.w[0] + s.w[1]) / 2), SUMMARY),
    Fault("u of a snapshot", "momentum", engine,
          lambda p: with_property(p, Snapshot, "u", lambda s: s.w[0] + s.w[1]), SUMMARY),
    Fault("c of a snapshot", "biased", engine,
          lambda p: with_property(p, Snapshot, "log_init",
                                  lambda s: s.path_sums_with_boundary.diff(dim=0)[0]), SUMMARY),
    Fault("the predicted Delta of a snapshot", "momentum", engine,
          lambda p: with_property(p, Snapshot, "predicted_balancedness",
                                  lambda s: s.limit_balancedness), SUMMARY),
    Fault("the recovery error", "momentum", engine,
          of_summary("recovery", lambda f: {"recovery_error": f["recovery_error"] ** 2}), SUMMARY),
    Fault("the l1 norm", "momentum", engine,
          of_summary("recovery", lambda f: {"l1_norm": f["l1_norm"] / 2}), SUMMARY),
    Fault("the balancedness ratio", "biased", engine,
          of_summary("balancedness_scalars",
                     lambda f: {"min_balancedness_ratio": 1 / f["min_balancedness_ratio"]}),
          SUMMARY),
    Fault("a certificate that is always 0", "quiet", engine,
          lambda p: p.setattr(summary, "balancedness_errors", lambda s: {
              "path_identity_error": 0 * s.loss, "path_sum_balancedness_error": 0 * s.loss}),
          SUMMARY),
    Fault("the log-free error", "momentum", engine,
          lambda p: p.setattr(summary, "log_free_error", lambda s: s.loss), SUMMARY),
    Fault("the KKT residual", "momentum", engine,
          of_summary("certificate", lambda f: {"kkt_residual": f["kkt_residual"] + 1e-6}), SUMMARY),
    Fault("two distances for one", "biased", engine,
          of_summary("minimiser_distances", lambda f: {
              "distance_to_gradient_flow_minimizer": f["distance_to_minimizer"]}), SUMMARY),
    Fault("lambda_KS", "momentum", engine,
          of_summary("rates", lambda f: {"lam_ks": f["lam"]}), SUMMARY),
    Fault("S_+- negated", "quiet", iterates,
          lambda p: with_property(p, Snapshot, "path_sums", lambda s: -s.path_sums_from_iterates),
          ("MGD: S_+- = -+ eps G_k", "MGD: S_+- grows", "MGD: Delta_k", "MGD: Delta_inf = ",
           "MGD: KKT", "MGD: theta_k", "MGD: theta_inf = argmin D")),
    Fault("r(z) without |.|, at the end", "momentum", iterates, without_the_absolute_value,
          ("MGD: S_+- = -+ eps G_k", "MGD: Delta_k", "MGD: KKT", "MGD: theta_k",
           "MGD: Delta_inf = ", "MGD: D(theta*"), RUN),
    Fault("u^2 - v^2 without its boundary", "momentum", iterates,
          lambda p: p.setattr("dln_momentum.verification.discrete_bias.log_free_balance",
                              lambda w0, w, w1, products, beta, first:
                              w0[0] * w0[1] + products), ("MGD: u^2 - v^2",)),
    Fault("a divergence off by 1 %, of a run", "quiet", iterates, other_divergence,
          ("MGD: D(theta*",)),
    Fault("Delta twice, of a run", "quiet", iterates,
          lambda p: with_property(p, Trajectory, "balancedness",
                                  lambda t: 2 * (t.w[0] * t.w[1]).abs()),
          ("MGD: Delta_inf < Delta_0", "MGD: Delta_k")),
    Fault("a minimiser off by 1 %, of a run", "quiet", iterates,
          lambda p: scaled(p, minimisers.minimiser, 1.01),
          ("MGD: theta_inf = argmin psi", "MGD: theta_inf = argmin D", "MGD: theta_k")),
    Fault("path sums without weights", "quiet", family,
          lambda p: everywhere(p, schedules.path_sums, lambda w, beta, before:
                               schedules.weighted_sums(w[1:] * 0, beta, 0.0)
                               - schedules.backward_remainder(w[:-1], w[1:]).cumsum(0)),
          ("Schedules: Delta", "Schedules: theta", "Weight decay: Delta", "Weight decay: theta",
           "Decoupled weight decay (rescaled iterates): Delta",
           "Decoupled weight decay (rescaled iterates): theta",
           "Rates of coordinates: Delta", "Rates of layers: Delta")),
    Fault("heavy ball's sums for Nesterov's method", "quiet", family,
          lambda p: everywhere(p, nesterov.path_sums, schedules.path_sums),
          ("Nesterov: Delta", "Nesterov: theta")),
    Fault("half of the decay in Delta", "quiet", family,
          lambda p: everywhere(p, weight_decay.balancedness_factor, lambda step, beta:
                               torch.exp(-schedules.weighted_sums(step, beta))),
          ("Weight decay: Delta", "Weight decay: theta")),
    Fault("decay that is not taken out", "quiet", family,
          lambda p: everywhere(p, weight_decay.rescaled, lambda w, shrink: w),
          ("Decoupled weight decay (rescaled iterates): Delta",)),
    Fault("a potential without the rates of coordinates", "quiet", family,
          lambda p: everywhere(p, coordinate_rates.scaled_rows, lambda X, kappa: X),
          ("Rates of coordinates: theta",)),
    Fault("layers scaled by the square root", "quiet", family,
          lambda p: everywhere(p, coordinate_rates.scaled_layers, lambda u, v, a, b:
                               (u * (b / a) ** 0.5, v * (a / b) ** 0.5)),
          ("Rates of layers: Delta", "Rates of layers: theta")),
    Fault("balances without the products of increments", "quiet", family,
          lambda p: p.setattr(balances.RunningBalance, "advance", lambda *a: None),
          ("Balances: u_2^2", "Balances: a_j^2", "Balances: W_2^T W_2")),
    Fault("path sums of depth 3 without weights", "quiet", networks,
          lambda p: everywhere(p, depth.path_sum_increment, lambda w, after, weight, D:
                               depth.layer_divergence(w, after, D)),
          ("Depth 3: u^", "Depth 3: theta_(K+1) minimises", "Depth 3: theta_(K+1) is the")),
    Fault("path sums of a classification without weights", "quiet", networks,
          lambda p: everywhere(p, schedules.path_sums, lambda w, beta, before:
                               schedules.weighted_sums(w[1:] * 0, beta, 0.0)
                               - schedules.backward_remainder(w[:-1], w[1:]).cumsum(0)),
          ("Logistic loss: Delta", "Logistic loss: theta_(k+1)")),
    Fault("ascent on the logistic loss", "quiet", networks,
          lambda p: p.setitem(losses.LOSSES, "logistic", dataclasses.replace(
              losses.LOGISTIC, slope=lambda z, y: -losses.LOGISTIC.slope(z, y))),
          ("Logistic loss: y_i nu_i", "Logistic loss: theta_K is the minimiser")),
    Fault("another direction of largest margin", "quiet", networks,
          lambda p: replaced(p, max_margin.max_margin, lambda theta: theta.roll(1)),
          ("Logistic loss: no iterate has a larger l1",
           "Logistic loss: no iterate has a larger l2")),
    Fault("theta of a snapshot", "quiet", iterates,
          lambda p: with_property(p, Snapshot, "theta", lambda s: s.w[0] ** 2 - s.w[1] ** 2),
          ("MGD: summarise and Snapshot give the numbers of the last iterate",)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    measurements = evidence_for(fault.case, fault.anew)
    fault.plant(monkeypatch)
    found = violated(getattr(module, fault.part)(measurements))
    for start in fault.caught:
        assert any(name.startswith(start) for name in found), (start, found)


NO_EFFECT: dict[str, set[str]] = {
    "a start of 1e-10": {
        # w_+ = w_-, theta_0 = 0, and Delta_0 is the same in every coordinate
        "gradient flow from (w_+, w_+)", "least norm without weights",
        "flow summary without theta_0",
        # a difference of two losses has two digits there
        "M of a step off by 1 %",
        # near the interpolator of least l1 norm, whatever Delta is
        "effective flow from Delta",
        # q and its drift are of the size 1e-20, the bounds of F(w_0)
        "the drift's bound over 1000", "the discrete bound over 1000",
    },
    "an uneven start of 10": set(),
}  # fmt: skip
"""Faults that cannot be seen at a hostile setting, whatever the tolerance of the statement."""


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_a_fault_of_a_flow_is_found_at_a_hostile_setting(case: str) -> None:
    """What holds there as it is does not hold once a fault of it is planted."""
    parts = (gradient, scheme, momentum_part, small, changing)
    found = {
        part: {s.name: s.verdict for s in getattr(module, part)(evidence_for(case, ()))}
        for part in parts
    }
    assert Verdict.VIOLATED not in {v for verdicts in found.values() for v in verdicts.values()}
    missed, planted = [], 0
    for fault in FAULTS:
        holding = [
            name
            for name, verdict in found.get(fault.part, {}).items()
            if verdict in (Verdict.HOLDS, Verdict.PARTLY) and name.startswith(fault.caught)
        ]
        if not holding or fault.name in NO_EFFECT[case]:
            continue
        with pytest.MonkeyPatch.context() as patch:
            measurements = evidence_for(case, fault.anew)
            fault.plant(patch)
            wrong = violated(getattr(module, fault.part)(measurements))
        missed += [(fault.name, name) for name in holding if name not in wrong]
        planted += 1
    assert missed == []
    assert planted > 15


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "quiet"]
)
def test_nothing_is_found_where_nothing_is_planted(case: str) -> None:
    assert not violated(statements(evidence_for(case, ())))


@pytest.mark.slow
def test_every_statement_has_a_fault_that_violates_it() -> None:
    caught = {start for fault in FAULTS for start in fault.caught}
    found = list(statements(evidence_for("quiet", ())))
    assert not violated(iter(found))
    names = [statement.name for statement in found]
    missed = [name for name in names if not any(name.startswith(start) for start in caught)]
    assert not missed
    # and no row waits for a statement that is gone
    assert not [start for start in caught if not any(name.startswith(start) for name in names)]


# ---- the compiled passes, which are patched as plain Python


def sums_by(add: Callable, w: np.ndarray, after: np.ndarray, beta: float) -> np.ndarray:
    sums = np.zeros_like(w)
    add(w, after, np.full_like(w, beta), sums, 0, 0, 0, len(w))
    return sums


def mutated_large_steps(old: str, new: str) -> Callable:
    """`add_path_sums` as plain Python, with a changed text of its large steps."""
    source = textwrap.dedent(inspect.getsource(passes._add_large_steps.py_func))
    source = source[source.index("def ") :]
    assert old in source
    space = dict(vars(passes))
    exec(source.replace(old, new), space)
    return types.FunctionType(passes.add_path_sums.py_func.__code__, space)


def plain_sums(w: np.ndarray, after: np.ndarray, beta: float) -> np.ndarray:
    r = lambda z: (z - 1) - np.log(np.abs(z))  # noqa: E731
    return (r(after / w) + beta * r(w / after)) / (1 - beta)


def across_zero() -> tuple[np.ndarray, np.ndarray]:
    """Large steps, a fourth of them across zero each way."""
    w = np.array([1.0, -1.0, 0.5, -0.5, 2.0, 0.1, -0.1, 1.0])
    return w, np.array([-0.7, 0.7, 1.5, -1.5, 0.3, -2.0, 2.0, 3.0])


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_compiled_pass_is_the_plain_formula_across_zero(beta: float) -> None:
    w, after = across_zero()
    found = sums_by(passes.add_path_sums, w, after, beta)
    # a few ulp of terms of size 20/(1 - beta)
    np.testing.assert_allclose(found, plain_sums(w, after, beta), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("math.log(abs(new / old))", "(np.log(new / old))"),
        ("beta[at + i] * backward", "backward"),
        ("/ (1 - beta[at + i])", ""),
    ],
)
def test_that_comparison_finds_a_changed_pass(old: str, new: str) -> None:
    w, after = across_zero()
    with np.errstate(all="ignore"):
        found = sums_by(mutated_large_steps(old, new), w, after, 0.9)
    assert not np.allclose(found, plain_sums(w, after, 0.9), rtol=1e-3, atol=1e-3)
