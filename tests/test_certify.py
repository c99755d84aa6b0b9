"""`certify` and `PathRecorder`: runs of others, and the faults that a certificate must show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import dln_momentum as dln
from dln_momentum.theory.schedules import torch_momentum
from tests.mp_runs import Draw, MpRun, draw, run

STEPS = 60
OMEGA = np.where(np.arange(STEPS) < 20, 0.05, 0.0)
KAPPA = np.array([0.3, 1.0, 2.0, 0.5])


def in_doubles(case: Draw, *, full: bool = True) -> Draw:
    arrays = (case.X, case.y, case.u, case.v, case.gamma / 2, case.beta)
    rows = [np.arange(2)] * len(case.gamma) if full else case.rows
    X, y, u, v, gamma, beta = (np.asarray(x).astype(float) for x in arrays)
    return Draw(X, y, u, v, gamma, beta, rows)


CASE = in_doubles(draw(1, steps=STEPS))
BATCHES = in_doubles(draw(1, steps=STEPS), full=False)
PROBLEM = dln.Problem(CASE.X, CASE.y)
GIVEN: dict[str, Any] = {
    "gamma": CASE.gamma, "beta": CASE.beta, "previous": (CASE.u[0], CASE.v[0]),
}  # fmt: skip
LAYERS: dict[str, Any] = {"gamma": None, "gamma_u": CASE.gamma / 3, "gamma_v": CASE.gamma * 3}
NESTEROV: dict[str, Any] = {"method": "nesterov"}
MEMBERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "heavy ball": ({}, {}),
    "nesterov": ({"nesterov": True}, NESTEROV),
    "coupled decay": ({"decay": OMEGA}, {"weight_decay": OMEGA}),
    "nesterov with decay": (
        {"decay": OMEGA, "nesterov": True}, {"weight_decay": OMEGA, **NESTEROV},
    ),
    "decoupled decay": (
        {"shrink": OMEGA * CASE.gamma}, {"weight_decay": OMEGA, "decoupled": True},
    ),
    "coordinates": ({"kappa": KAPPA}, {"kappa": KAPPA}),
    "coordinates with decay": (
        {"kappa": KAPPA, "decay": OMEGA}, {"kappa": KAPPA, "weight_decay": OMEGA},
    ),
    "layers": ({"ratio": 3.0}, LAYERS),
}  # fmt: skip
"""What is run, and what `certify` is told."""


def certified(path: MpRun, **told: Any) -> dln.PathCertificate:
    return dln.certify(PROBLEM, (path.u[1:], path.v[1:]), **{**GIVEN, **told})


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize(
    "full",
    [pytest.param(True, marks=pytest.mark.slow), False],
    ids=["full batch", "mini-batches"],
)
def test_every_member_of_the_family_is_certified(name: str, full: bool) -> None:
    made, told = MEMBERS[name]
    found = certified(run(CASE if full else BATCHES, **made), full_batch=full, **told)
    assert found.is_valid, found
    # 60 steps of 1e-16 times weights of up to 20; Delta passes within 1e-3 of a zero of w_+-
    assert found.kkt_residual < 1e-12
    assert found.path_identity_error < 1e-9
    assert max(found.asymmetry, found.outside) < 1e-13
    assert (found.update_error < 1e-13) if full else np.isnan(found.update_error)
    assert found.steps == STEPS
    np.testing.assert_allclose(found.balancedness, found.predicted_balancedness, rtol=1e-9, atol=0)
    assert f"steps={STEPS}" in repr(found)


FAULTS: dict[str, tuple[Callable[[], dln.PathCertificate], str]] = {
    "one step size": (
        lambda: certified(run(CASE), gamma=np.where(np.arange(STEPS) == 5, 1.001, 1) * CASE.gamma),
        "update_error",
    ),
    "one momentum": (
        lambda: certified(run(CASE), beta=CASE.beta + 1e-3 * (np.arange(STEPS) == 30)),
        "asymmetry",
    ),
    "no decay told": (lambda: certified(run(CASE, decay=OMEGA)), "path_identity_error"),
    "the other decay": (
        lambda: certified(run(CASE, shrink=OMEGA * CASE.gamma), weight_decay=OMEGA),
        "path_identity_error",
    ),
    "nesterov for heavy ball": (lambda: certified(run(CASE, nesterov=True)), "kkt_residual"),
    "heavy ball for nesterov": (lambda: certified(run(CASE), **NESTEROV), "kkt_residual"),
    "no rates of coordinates": (lambda: certified(run(CASE, kappa=KAPPA)), "kkt_residual"),
    "no rates of layers": (lambda: certified(run(CASE, ratio=3.0)), "asymmetry"),
    "rest for a speed": (lambda: certified(run(CASE), previous=None), "kkt_residual"),
}
"""What is wrong, and a number that must show it."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    make, number = FAULTS[name]
    found = make()
    assert not found.is_valid
    assert any(text.startswith(number) for text in found.failures), found


@pytest.mark.parametrize("name", MEMBERS)
def test_a_millionth_in_one_iterate_is_found(name: str) -> None:
    made, told = MEMBERS[name]
    path = run(BATCHES, **made)
    path.u[STEPS // 2, 1] += 1e-6
    found = certified(path, full_batch=False, **told)
    assert {text.split(" ")[0] for text in found.failures} >= {"asymmetry", "outside"}
    # far above rounding, which is 1e-13
    assert found.asymmetry > 1e-8


def test_without_gamma_nothing_is_said_about_step_sizes() -> None:
    found = certified(run(CASE), gamma=None)
    assert found.is_valid
    assert np.isnan(found.update_error)


def test_along_the_path_every_iterate_is_the_minimiser_of_its_level_set() -> None:
    found = certified(run(BATCHES), full_batch=False, every=1)
    assert found.is_valid
    assert found.steps.tolist() == list(range(1, STEPS + 1))
    assert found.balancedness.shape == found.theta.shape == found.s_plus.shape == (STEPS, 4)
    assert found.kkt_residual.max() < 1e-12
    # at a step near a zero of w_+- its relative rounding is a thousand times larger
    assert found.path_identity_error.max() < 1e-9
    assert found.sign_changes[-1] > 0
    end = certified(run(BATCHES), full_batch=False)
    assert end.kkt_residual == found.kkt_residual[-1]
    np.testing.assert_array_equal(end.log_init, found.log_init[-1])
    sparse = certified(run(BATCHES), full_batch=False, every=25)
    assert sparse.steps.tolist() == [25, 50, STEPS]


def test_the_minimiser_is_where_a_converged_run_ends() -> None:
    case = in_doubles(draw(3, steps=600, constant=True))
    path = run(case)
    problem = dln.Problem(case.X, case.y)
    found = dln.certify(
        problem, (path.u[1:], path.v[1:]), beta=case.beta[0], gamma=case.gamma[0],
        previous=(path.u[0], path.v[0]),
    )  # fmt: skip
    assert found.is_valid
    assert problem.loss(found.theta) < 1e-25
    # y is met to 1e-13, and the minimiser moves by as much
    np.testing.assert_allclose(found.minimizer, found.theta, rtol=0, atol=1e-10)
    assert found.distance_to_minimizer < 1e-10


def test_arrays_of_any_kind_and_other_parametrisations() -> None:
    case = in_doubles(draw(14, steps=30, rest=True))
    path, problem = run(case), dln.Problem(case.X, case.y)
    u, v = path.u[1:], path.v[1:]
    told: dict[str, Any] = {"gamma": case.gamma, "beta": case.beta}
    reference = dln.certify(problem, (u, v), **told)
    assert reference.is_valid, reference
    for pair in ((u.tolist(), v.tolist()), (torch.from_numpy(u), torch.from_numpy(v))):
        assert dln.certify(problem, pair, **told).kkt_residual == reference.kkt_residual
    diagonal = dln.certify(problem, (u + v, u - v), parametrisation="diagonal", **told)
    squares = dln.certify(
        problem, ((u + v) / 2, (u - v) / 2), parametrisation="squares",
        gamma=case.gamma / 2, beta=case.beta,
    )  # fmt: skip
    for found in (diagonal, squares):
        assert found.is_valid, found
        np.testing.assert_array_equal(found.log_init, reference.log_init)


def test_what_single_precision_can_decide() -> None:
    path = run(CASE)
    u, v = path.u[1:].astype(np.float32), path.v[1:].astype(np.float32)
    found = dln.certify(PROBLEM, (u, v), **GIVEN)
    assert found.is_valid
    assert 1e-7 < found.path_identity_error < found.tolerance
    wrong = dln.certify(PROBLEM, (u, v), **{**GIVEN, "beta": CASE.beta * 0.9})
    assert wrong.failures
    # a loop appends them one by one
    listed = dln.certify(PROBLEM, ([*u], [*map(torch.from_numpy, v)]), **GIVEN)
    assert (listed.verdict, listed.tolerance) == ("valid", found.tolerance)
    half = dln.certify(PROBLEM, (u.astype(np.float16), v.astype(np.float16)), **GIVEN)
    assert half.verdict.startswith("not decided: ")


@pytest.mark.parametrize("kappa", [1.0, KAPPA])
def test_a_run_of_classification_is_judged_by_the_gradient_of_its_own_loss(kappa: Any) -> None:
    problem = dln.Problem(CASE.X, [1.0, -1.0], loss="logistic")
    u, v, du, dv = [np.full(4, 0.3)], [np.full(4, 0.1)], 0.0, 0.0
    for _ in range(40):
        g = kappa * problem.gradient(u[-1] * v[-1]).numpy()
        du, dv = 0.9 * du - 0.02 * g * v[-1], 0.9 * dv - 0.02 * g * u[-1]
        u.append(u[-1] + du)
        v.append(v[-1] + dv)
    found = dln.certify(problem, (u, v), gamma=0.02, beta=0.9, kappa=kappa)
    assert found.is_valid, found
    # there is no interpolator for it to end at
    assert np.isnan(found.distance_to_minimizer)
    assert "distance" not in repr(found) + found._repr_html_()
    squares = dln.Problem(CASE.X, [1.0, -1.0])
    wrong = dln.certify(squares, (u, v), gamma=0.02, beta=0.9, kappa=kappa)
    # the theorem holds of any loss of X theta: the size of the steps alone is another
    assert [line.split()[0] for line in wrong.failures] == ["update_error"]
    assert "with another gamma" in wrong.verdict


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "adam": ({"method": "adam"}, r"method = 'adam' must be one of heavy_ball, nesterov"),
    "beta": ({"beta": 1.0}, r"beta = 1.0 must be in \[0, 1\)"),
    "gamma": ({"gamma": -1.0}, "gamma = -1.0 must be finite and > 0"),
    "length": ({"gamma": np.ones(3)}, r"gamma has shape \[3\]; it must be a number or \[60\]"),
    "decay without gamma": ({"gamma": None, "weight_decay": 0.1}, "weight_decay needs gamma"),
    "decay of layers": ({**LAYERS, "weight_decay": 0.1}, "the layers would decay unequally"),
    "ratio": ({**LAYERS, "gamma_u": CASE.gamma**2}, "gamma_v/gamma_u must be constant"),
    "one layer": ({"gamma": None, "gamma_u": 0.1}, "give gamma, or gamma_u and gamma_v"),
    "nesterov sgdw": (
        {**NESTEROV, "decoupled": True}, "decoupled weight decay with method = nesterov",
    ),
    "ahead": ({**NESTEROV, "stores_ahead": True}, "stores_ahead needs a constant beta"),
    "kappa": ({"kappa": [1.0, -1.0, 1.0, 1.0]}, r"must be a number or \[4\], > 0"),
    "every": ({"every": 0}, "every = 0 must be an integer >= 1"),
    "previous": ({"previous": ([1.0], [1.0])}, r"previous has shapes \[1\] and \[1\]"),
    "parametrisation": ({"parametrisation": "cubes"}, "parametrisation = 'cubes' must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_the_family_is_named(name: str) -> None:
    told, message = REFUSED[name]
    with pytest.raises(dln.InputError, match=message):
        certified(run(CASE), **told)


def test_iterates_that_the_theorem_does_not_cover_are_named() -> None:
    u, v = run(CASE).u[1:].copy(), run(CASE).v[1:].copy()
    v[7, 2] = u[7, 2]
    with pytest.raises(dln.InputError, match="w_- is exactly 0 at index 7, coordinate 2"):
        dln.certify(PROBLEM, (u, v), **GIVEN)
    u[9, 0] = np.inf
    with pytest.raises(dln.InputError, match="not finite at index 9"):
        dln.certify(PROBLEM, (u, v), **GIVEN)
    with pytest.raises(dln.InputError, match=r"both must be \[K\+1, 4\]"):
        dln.certify(PROBLEM, (u[:, :3], v[:, :3]), **GIVEN)


# a run that this project did not make: torch.optim.SGD on two parameters

DATA = dln.sparse(n=4, d=7, s=2, seed=0)
SGD: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.4},
    "weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "dampening and weight decay": {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.01},
    "nesterov and weight decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}


class Layers(nn.Module):
    """A diagonal network as others write it."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.u = nn.Parameter(torch.from_numpy(0.4 + 0.1 * rng.standard_normal(7)).to(dtype))
        self.v = nn.Parameter(torch.from_numpy(0.1 * rng.standard_normal(7)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.u * self.v)


def loss_of(net: Layers, rows: Any) -> Tensor:
    X, y = DATA.X[rows].to(net.u), DATA.y[rows].to(net.u)
    return (net(X) - y).square().mean()


def train(
    optimizer: torch.optim.Optimizer,
    net: Layers,
    steps: int,
    scheduler: Any = None,
    stored: list[tuple[Tensor, Tensor]] | None = None,
) -> None:
    """Mini-batches of two rows."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net, torch.randperm(4, generator=generator)[:2]).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if stored is not None:
            stored.append((net.u.detach().clone(), net.v.detach().clone()))


@pytest.mark.parametrize("scheduled", [False, True], ids=["constant", "StepLR"])
@pytest.mark.parametrize("name", SGD)
def test_torch_sgd_in_its_combinations(name: str, scheduled: bool) -> None:
    """Certified, or refused with the reason: Nesterov's step of torch is none under a schedule."""
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, **SGD[name])
    scheduler = schedulers.StepLR(optimizer, 15, gamma=0.5) if scheduled else None
    recorder = dln.PathRecorder(optimizer, net.u, net.v, DATA)
    train(optimizer, net, 40, scheduler)
    if scheduled and "nesterov" in name:
        with pytest.raises(dln.InputError, match=r"step 16: nesterov with a schedule: lr changed"):
            recorder.certify(DATA)
        return
    found = recorder.certify(DATA)
    assert found.is_valid, found
    assert found.steps == recorder.steps == 40
    assert found.kkt_residual < 1e-12
    assert found.path_identity_error < 1e-11
    assert max(found.asymmetry, found.outside) < 1e-13
    if "nesterov" not in name:  # whose theta is that of x_k, while torch stores the point ahead
        theta = (net.u * net.v).detach().numpy()
        np.testing.assert_allclose(found.theta, theta, rtol=1e-12, atol=1e-15)


def test_a_recorder_is_certify_on_stored_iterates() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    stored = [(net.u.detach().clone(), net.v.detach().clone())]
    train(optimizer, net, 60, schedulers.StepLR(optimizer, 20, gamma=0.5), stored)
    lr = torch.full((60,), 0.02, dtype=torch.float64) * 0.5 ** (torch.arange(60) // 20)
    u, v = (torch.stack(x) for x in zip(*stored, strict=True))
    beta = torch_momentum(lr, torch.tensor(0.9, dtype=torch.float64))
    told: dict[str, Any] = {"gamma": lr, "weight_decay": 0.01, "full_batch": False}
    found = dln.certify(DATA, (u, v), beta=beta, **told)
    recorded = recorder.certify(DATA)
    for name in ("log_init", "s_plus", "s_minus", "predicted_balancedness"):
        # the same sums, of rates that differ in their last digit
        np.testing.assert_allclose(
            getattr(recorded, name), getattr(found, name), rtol=1e-12, atol=1e-12
        )
    # torch's own momentum is not beta where the rate changes
    assert not dln.certify(DATA, (u, v), beta=0.9, **told).is_valid


def test_iterates_of_torch_nesterov_are_the_points_ahead() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, **SGD["nesterov"])
    stored = [(net.u.detach().clone(), net.v.detach().clone())]
    train(optimizer, net, 60, None, stored)
    u, v = (torch.stack(x) for x in zip(*stored, strict=True))
    told: dict[str, Any] = {"beta": 0.9, "method": "nesterov", "full_batch": False}
    assert dln.certify(DATA, (u, v), stores_ahead=True, **told).is_valid
    assert not dln.certify(DATA, (u, v), **told).is_valid


HEAVY_BALL = {
    "StepLR": lambda o: schedulers.StepLR(o, 15, gamma=0.5),
    "cosine to 0": lambda o: schedulers.CosineAnnealingLR(o, T_max=25, eta_min=0.0),
    "one cycle": lambda o: schedulers.OneCycleLR(o, max_lr=0.03, total_steps=60),
    "warm-up from 0": lambda o: schedulers.LambdaLR(o, lambda k: min(1.0, k / 10)),
}


@pytest.mark.parametrize("optimizer_of", [dln.HeavyBall, torch.optim.SGD], ids=["ours", "torch"])
@pytest.mark.parametrize("name", HEAVY_BALL)
def test_under_the_schedulers_of_torch(name: str, optimizer_of: Any) -> None:
    """HeavyBall and torch.optim.SGD differ when rates change; both are in the family."""
    net = Layers()
    optimizer = optimizer_of(net.parameters(), lr=0.02, momentum=0.9)
    scheduler = HEAVY_BALL[name](optimizer)
    recorder = dln.PathRecorder(optimizer, net.u, net.v, DATA)
    train(optimizer, net, 40, scheduler)
    found = recorder.certify(DATA)
    assert found.is_valid, found
    assert found.kkt_residual < 1e-12


def test_an_optimizer_that_has_stepped_before_has_an_initial_speed() -> None:
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.3),
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
        lambda p: dln.HeavyBall(p, 0.02, 0.9),
    ):
        net = Layers()
        optimizer = make(net.parameters())
        train(optimizer, net, 10)
        recorder = dln.PathRecorder(optimizer, net.u, net.v)
        train(optimizer, net, 30)
        found = recorder.certify(DATA)
        assert found.is_valid, found
        assert found.kkt_residual < 1e-12


def test_layers_in_groups_of_their_own() -> None:
    net = Layers()
    groups = [{"params": [net.u], "lr": 0.01}, {"params": [net.v], "lr": 0.04}]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    train(optimizer, net, 40, schedulers.StepLR(optimizer, 15, gamma=0.5))
    assert recorder.certify(DATA).is_valid
    optimizer.param_groups[1]["lr"] *= 2
    train(optimizer, net, 1)
    assert "step 41: gamma_v/gamma_u was 4 and is 8" in recorder.faults
    net = Layers()
    groups = [{"params": [net.u], "momentum": 0.5}, {"params": [net.v]}]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9, weight_decay=0.1)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    train(optimizer, net, 2)
    assert recorder.faults == ["step 2: beta of u is 0.5 and of v 0.9"]


def test_theta_is_a_difference_of_squares() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    recorder = dln.PathRecorder(optimizer, net.u, net.v, parametrisation="squares")
    for _ in range(40):
        optimizer.zero_grad()
        (DATA.X @ (net.u**2 - net.v**2) - DATA.y).square().mean().backward()
        optimizer.step()
    assert recorder.certify(DATA).is_valid


def test_another_loss_of_x_theta_and_single_precision() -> None:
    net = Layers(torch.float32)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.huber_loss(net(DATA.X.float()), DATA.y.float()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
    found = recorder.certify(DATA)
    assert found.is_valid, found
    # 50 steps of 1e-7
    assert 1e-9 < found.kkt_residual < 1e-4


def test_what_else_writes_to_the_parameters_is_noted() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    with pytest.raises(dln.InputError, match="no step has been recorded"):
        recorder.certify(DATA)
    with torch.no_grad():
        net.u.mul_(1.1)  # before the first step it is where the run starts
    train(optimizer, net, 5)
    assert recorder.certify(DATA).is_valid
    with torch.no_grad():
        net.u[2] += 1e-12
    changed = "a parameter was changed by something else than the optimizer after step 5"
    assert recorder.faults == [changed]
    train(optimizer, net, 5)
    with pytest.raises(dln.InputError, match=changed):
        recorder.certify(DATA)
    assert recorder.steps == 5


def test_a_closed_recorder_keeps_what_it_has() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    train(optimizer, net, 5)
    recorder.close()
    found = recorder.certify(DATA)
    train(optimizer, net, 5)
    assert recorder.steps == found.steps == 5


class Stepping(torch.optim.SGD):
    """A subclass with a step of its own."""

    def step(self, closure: Any = None) -> Any:
        return None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.Adam(p), "Adam scales the step of each coordinate"),
        (lambda p: torch.optim.AdamW(p), "AdamW scales the step"),
        (lambda p: torch.optim.RMSprop(p), "RMSprop scales the step"),
        (lambda p: torch.optim.LBFGS(p), "optimizer is a LBFGS; the steps of torch.optim.SGD and"),
        (lambda p: Stepping(p, 0.1), "optimizer is a Stepping"),
        (lambda p: torch.optim.SGD(p, 0.1, maximize=True), "maximize = True ascends"),
        (lambda p: "sgd", "optimizer is a str; it must be a torch optimizer"),
        (
            lambda p: torch.optim.SGD([nn.Parameter(torch.ones(7))], 0.1),
            "the optimizer does not train this parameter",
        ),
    ],
)
def test_optimizers_outside_the_family_are_refused(make: Any, message: str) -> None:
    net = Layers()
    with pytest.raises(dln.InputError, match=message):
        dln.PathRecorder(make(net.parameters()), net.u, net.v)


def test_settings_that_leave_the_family_during_the_run_are_named() -> None:
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    for momentum in (0.9, 0.0, 0.9):
        optimizer.param_groups[0]["momentum"] = momentum
        train(optimizer, net, 2)
    assert recorder.faults == [
        "step 5: momentum was 0 and is not now: torch's buffer is not of the last step"
    ]
    net = Layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    recorder = dln.PathRecorder(optimizer, net.u, net.v)
    net.u.grad = torch.ones_like(net.u)
    optimizer.step()
    assert recorder.faults == ["step 1: a parameter had no gradient, another had one"]


class Plain(pl.LightningModule):
    """A module of someone else: automatic optimisation, torch.optim.SGD, a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Layers()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
        return [optimizer], [schedulers.CosineAnnealingLR(optimizer, T_max=20)]


class Recording(pl.Callback):
    """How a recorder is put into a training that is not one's own."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        net: Any = pl_module.net
        self.recorder = dln.PathRecorder(pl_module.optimizers(), net.u, net.v)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_plain_lightning_module_is_certified() -> None:
    rows = torch.utils.data.TensorDataset(DATA.X, DATA.y)
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    recording, module = Recording(), Plain()
    trainer = pl.Trainer(
        max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[recording],
    )  # fmt: skip
    trainer.fit(module, loader)
    found = recording.recorder.certify(DATA)
    assert found.is_valid, found
    assert found.steps == trainer.global_step == 30
    assert found.kkt_residual < 1e-12
