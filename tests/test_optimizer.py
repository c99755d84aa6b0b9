"""HeavyBall against torch's SGD, the poster's recursion, and the machinery of torch optimizers."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

from dln_momentum import DiagonalLinearNet, HeavyBall, InputError


def quadratic(seed: int, d: int = 6) -> tuple[Tensor, Tensor]:
    """A convex quadratic w -> w'Hw/2 with eigenvalues in (0, 1], and a starting point."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    return hessian / torch.linalg.matrix_norm(hessian, 2), torch.randn(
        d, generator=generator, dtype=torch.float64
    )


def descend(optimizer: torch.optim.Optimizer, w: Tensor, hessian: Tensor, steps: int) -> None:
    for _ in range(steps):
        w.grad = hessian @ w.detach()
        optimizer.step()


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), gamma=st.floats(1e-3, 1.0), beta=st.floats(0.0, 0.99))
def test_equals_torch_sgd_while_gamma_is_constant(seed: int, gamma: float, beta: float) -> None:
    hessian, start = quadratic(seed)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    descend(HeavyBall([ours], gamma, beta), ours, hessian, 1000)
    descend(torch.optim.SGD([theirs], lr=gamma, momentum=beta), theirs, hessian, 1000)
    # both round each step at 1e-16 and forget within 1/(1-beta) <= 100 steps
    assert (ours - theirs).abs().max() <= 1e-13 * start.abs().max()


def test_parts_from_torch_sgd_when_gamma_changes() -> None:
    """Halve gamma after one step: ours follows the recursion, torch rescales its velocity."""
    finals = {}
    for make in (lambda w: HeavyBall([w], 0.1, 0.9), lambda w: torch.optim.SGD([w], 0.1, 0.9)):
        w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = make(w)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        descend(optimizer, w, torch.eye(1, dtype=torch.float64), 1)
        scheduler.step()
        descend(optimizer, w, torch.eye(1, dtype=torch.float64), 1)
        finals[type(optimizer)] = w.item()
    # w_1 = 1, w_2 = 0.9; then w_3 = 0.9 - 0.05*0.9 + 0.9*(0.9 - 1) = 0.765, while torch's
    # velocity 0.9*1 + 0.9 is rescaled as a whole: 0.9 - 0.05*1.8 = 0.81
    assert finals[HeavyBall] == pytest.approx(0.765, rel=1e-14)
    assert finals[torch.optim.SGD] == pytest.approx(0.81, rel=1e-14)


def rounding(start: Tensor) -> float:
    """300 steps that round differently at 1e-16 of |start|, each error growing by 1/(1-beta)."""
    return 1e-12 * float(start.abs().max())


def zero_buffers(sgd: torch.optim.SGD) -> torch.optim.SGD:
    """Start torch's buffers at zero: it sets the first one to the gradient, without dampening."""
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


@pytest.mark.parametrize(
    ("torch_keys", "gamma", "beta"),
    [
        ({"lr": 0.2, "momentum": 0.9}, 0.2, 0.9),
        ({"lr": 0.2, "momentum": 0.9, "dampening": 0.25}, 0.15, 0.9),
        # the EMA form: dampening = momentum
        ({"lr": 0.5, "momentum": 0.8, "dampening": 0.8}, 0.1, 0.8),
        ({"lr": 0.2}, 0.2, 0.0),
    ],
    ids=["sgd", "dampening", "ema", "plain"],
)
@pytest.mark.parametrize("warm", [False, True], ids=["zero buffers", "after 7 steps"])
def test_each_convention_of_the_docstring_is_torch_sgd(
    torch_keys: dict, gamma: float, beta: float, warm: bool
) -> None:
    hessian, start = quadratic(2)
    theirs = nn.Parameter(start.clone())
    sgd = torch.optim.SGD([theirs], **torch_keys)
    if warm:
        descend(sgd, theirs, hessian, 7)
    else:
        zero_buffers(sgd)
    ours = nn.Parameter(theirs.detach().clone())
    optimizer = HeavyBall([ours], gamma, beta)
    if warm and beta:
        buffer = sgd.state[theirs]["momentum_buffer"]
        optimizer.increment(ours).copy_(-torch_keys["lr"] * buffer)
    third = nn.Parameter(theirs.detach().clone())
    other = torch.optim.SGD([third], **torch_keys)
    other.load_state_dict(sgd.state_dict())
    converted = HeavyBall.from_torch(other)
    assert converted.param_groups[0]["lr"] == pytest.approx(gamma, rel=1e-15)
    assert converted.param_groups[0]["momentum"] == beta
    assert other.param_groups[0]["lr"] == torch_keys["lr"]
    for one, w in ((sgd, theirs), (optimizer, ours), (converted, third)):
        descend(one, w, hessian, 300)
    # the path has moved by about |start|, so the tolerance is twelve digits of it
    assert (theirs.detach() - start).abs().max() > 0.1 * float(start.abs().max())
    assert (ours - theirs).detach().abs().max() <= rounding(start)
    assert (third - theirs).detach().abs().max() <= rounding(start)


def test_a_new_torch_sgd_does_not_dampen_its_first_step() -> None:
    hessian, start = quadratic(2)
    w = nn.Parameter(start.clone())
    sgd = torch.optim.SGD([w], lr=0.2, momentum=0.9, dampening=0.25)
    ours = nn.Parameter(start.clone())
    optimizer = HeavyBall.from_torch(torch.optim.SGD([ours], 0.2, momentum=0.9, dampening=0.25))
    descend(sgd, w, hessian, 1)
    descend(optimizer, ours, hessian, 1)
    gradient = hessian @ start
    # one rounding of a product and one of a difference
    torch.testing.assert_close(w.detach(), start - 0.2 * gradient, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(ours.detach(), start - 0.15 * gradient, rtol=1e-15, atol=1e-15)


def test_nesterov_is_heavy_ball_with_the_gradient_ahead() -> None:
    hessian, start = quadratic(4)
    w = nn.Parameter(start.clone())
    nesterov = torch.optim.SGD([w], lr=0.2, momentum=0.9, nesterov=True)
    x = nn.Parameter(start.clone())
    optimizer = HeavyBall([x], 0.2, 0.9)
    for _ in range(300):
        descend(nesterov, w, hessian, 1)
        x.grad = hessian @ (x + 0.9 * optimizer.increment(x)).detach()
        optimizer.step()
    ahead = x + 0.9 * optimizer.increment(x)
    assert (ahead - w).detach().abs().max() <= rounding(start)
    plain = nn.Parameter(start.clone())
    descend(HeavyBall([plain], 0.2, 0.9), plain, hessian, 20)
    early = nn.Parameter(start.clone())
    descend(torch.optim.SGD([early], 0.2, momentum=0.9, nesterov=True), early, hessian, 20)
    assert (plain - early).detach().abs().max() > 1e-2 * float(start.abs().max())


def test_a_change_of_gamma_keeps_the_increment_as_in_keras() -> None:
    hessian, start = quadratic(5)
    w = nn.Parameter(start.clone())
    optimizer = HeavyBall([w], 0.2, 0.9)
    ours = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    lr, increment, keras = 0.2, torch.zeros_like(start), start.clone()
    for _ in range(30):
        descend(optimizer, w, hessian, 1)
        ours.step()
        increment = 0.9 * increment - lr * (hessian @ keras)
        keras, lr = keras + increment, 0.9 * lr
    assert (w - keras).detach().abs().max() <= rounding(start)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentum": 0.9, "nesterov": True}, "nesterov = True has no counterpart"),
        ({"weight_decay": 0.1}, "weight_decay = 0.1 has no counterpart"),
        ({"maximize": True}, "maximize = True has no counterpart"),
        ({"momentum": 1.5}, "beta = 1.5 must be in"),
        ({"momentum": 0.5, "dampening": 1.0}, "gamma = 0.0 must be finite and > 0"),
    ],
)
def test_a_torch_sgd_that_is_not_heavy_ball_is_named(keys: dict, message: str) -> None:
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, **keys)
    with pytest.raises(InputError, match=message):
        HeavyBall.from_torch(sgd)
    adam: Any = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    with pytest.raises(InputError, match=r"sgd is a Adam; it must be a torch\.optim\.SGD"):
        HeavyBall.from_torch(adam)


def test_torch_names_and_the_papers_are_the_same_numbers() -> None:
    names: tuple[dict[str, Any], ...] = (
        {"gamma": 0.1, "beta": 0.9},
        {"lr": 0.1, "momentum": 0.9},
        {"gamma": 0.1, "momentum": 0.9},
    )
    groups = [HeavyBall([nn.Parameter(torch.ones(2))], **keys).param_groups[0] for keys in names]
    assert {(group["lr"], group["momentum"]) for group in groups} == {(0.1, 0.9)}
    mixed = HeavyBall([{"params": [nn.Parameter(torch.ones(2))], "momentum": 0.2}], lr=0.3)
    assert (mixed.param_groups[0]["lr"], mixed.param_groups[0]["momentum"]) == (0.3, 0.2)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "one cycle": lambda o: schedulers.OneCycleLR(o, max_lr=0.5, total_steps=40),
    "one cycle, gamma alone": lambda o: schedulers.OneCycleLR(
        o, max_lr=0.5, total_steps=40, cycle_momentum=False
    ),
    "step": lambda o: schedulers.StepLR(o, step_size=7, gamma=0.5),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, T_max=40, eta_min=1e-3),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_the_schedulers_of_torch_act_as_they_do_on_torch_sgd(make: Callable[[Any], Any]) -> None:
    """The rates are those that torch's SGD gets, and the path is the recursion with them."""
    hessian, start = quadratic(6)
    w, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = HeavyBall([w], gamma=0.2, beta=0.9)
    sgd = torch.optim.SGD([theirs], lr=0.2, momentum=0.9)
    pairs = [(optimizer, make(optimizer)), (sgd, make(sgd))]
    expected, increment = start.clone(), torch.zeros_like(start)
    seen = set()
    for _ in range(39):
        ours, other = optimizer.param_groups[0], sgd.param_groups[0]
        assert (ours["lr"], ours["momentum"]) == (other["lr"], other["momentum"])
        seen.add((ours["lr"], ours["momentum"]))
        increment = ours["momentum"] * increment - ours["lr"] * (hessian @ expected)
        expected = expected + increment
        for (one, scheduler), parameter in zip(pairs, (w, theirs), strict=True):
            descend(one, parameter, hessian, 1)
            scheduler.step()
    assert len(seen) > 3
    # the same operations, but for fused products
    assert (w - expected).detach().abs().max() <= rounding(start)


def test_a_deep_copy_goes_its_own_way_from_the_same_state() -> None:
    hessian, start = quadratic(1)
    net = nn.ParameterList([nn.Parameter(start.clone())])
    pair = net, HeavyBall(net.parameters(), 0.3, 0.8)
    descend(pair[1], net[0], hessian, 10)
    twin, optimizer = copy.deepcopy(pair)
    descend(optimizer, twin[0], hessian, 10)
    assert not torch.equal(twin[0], net[0])
    descend(pair[1], net[0], hessian, 10)
    assert torch.equal(twin[0], net[0])


def test_starts_from_the_pair_w0_w1() -> None:
    hessian, w_0 = quadratic(3)
    w_1 = w_0 + 0.1
    w = nn.Parameter(w_1.clone())
    optimizer = HeavyBall([w], 0.2, 0.7, previous=[w_0])
    assert torch.allclose(optimizer.previous(w), w_0, rtol=0, atol=1e-15)
    descend(optimizer, w, hessian, 1)
    expected = w_1 - 0.2 * hessian @ w_1 + 0.7 * (w_1 - w_0)
    assert torch.allclose(w, expected, rtol=0, atol=1e-14)
    assert torch.allclose(optimizer.previous(w), w_1, rtol=0, atol=1e-15)


def test_one_gamma_and_beta_for_each_run() -> None:
    gamma = torch.tensor([0.01, 0.02, 0.05], dtype=torch.float64)
    beta = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def train(net: DiagonalLinearNet, optimizer: HeavyBall) -> None:
        for _ in range(50):
            optimizer.zero_grad()
            (net(x) - 1).square().mean(-1).sum().backward()
            optimizer.step()

    together = DiagonalLinearNet.uniform(6, alpha=0.1, runs=(3,))
    train(together, HeavyBall(together.parameters(), gamma, beta))
    for run in range(3):
        alone = DiagonalLinearNet.uniform(6, alpha=0.1)
        train(alone, HeavyBall(alone.parameters(), gamma[run].item(), beta[run].item()))
        # same operations; the sums of products may be ordered differently
        assert torch.allclose(together.theta[run], alone.theta, rtol=1e-11, atol=1e-13)


def test_groups_have_their_own_parameters() -> None:
    a, b = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [a], "gamma": 0.5}, {"params": [b], "beta": 0.0}]
    optimizer = HeavyBall(groups, gamma=0.1, beta=0.9)
    for _ in range(2):
        for w in (a, b):
            w.grad = torch.ones_like(w)
        optimizer.step()
    assert a.item() == pytest.approx(1 - 0.5 - (0.5 + 0.9 * 0.5), rel=1e-15)
    assert b.item() == pytest.approx(1 - 0.1 - 0.1, rel=1e-15)


def test_state_dict_resumes_bitwise() -> None:
    hessian, start = quadratic(1)
    w = nn.Parameter(start.clone())
    optimizer = HeavyBall([w], 0.3, 0.8)
    descend(optimizer, w, hessian, 10)
    buffer = io.BytesIO()
    torch.save({"w": w.detach().clone(), "optimizer": optimizer.state_dict()}, buffer)
    descend(optimizer, w, hessian, 10)

    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = nn.Parameter(saved["w"])
    second = HeavyBall([resumed], 0.1, 0.1)
    second.load_state_dict(saved["optimizer"])
    descend(second, resumed, hessian, 10)
    assert torch.equal(resumed, w)


def test_closure_and_step_hooks() -> None:
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = HeavyBall([w], 0.1, 0.5)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> float:
        optimizer.zero_grad()
        loss = (w**2 / 2).sum()
        loss.backward()
        calls.append("closure")
        return loss.item()

    assert optimizer.step(closure) == 0.5
    assert w.item() == pytest.approx(0.9, rel=1e-15)
    assert calls == ["before", "closure", "after"]


def test_trains_any_module_and_skips_parameters_without_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    first = nn.Linear(3, 8)
    net = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 1)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    first.bias.requires_grad_(False)
    frozen = first.bias.clone()
    optimizer = HeavyBall(net.parameters(), 0.02, 0.9)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (net(x).squeeze(-1) - x[:, 0]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert torch.equal(first.bias, frozen)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gamma": 0.0}, "gamma = 0.0"),
        ({"gamma": 0.1, "beta": 1.0}, "beta = 1.0"),
        ({"gamma": torch.tensor([0.1, -0.1])}, "gamma = "),
        ({"gamma": float("inf")}, "gamma = inf must be finite"),
        ({"gamma": float("nan")}, "gamma = nan"),
        ({"gamma": None}, "gamma is missing"),
        ({"momentum": 0.5}, "gamma is missing"),
        ({"gamma": 0.1, "lr": 0.1}, "gamma and lr are two names of one number"),
        ({"gamma": "fast"}, "gamma = fast must be finite"),
        ({"gamma": 0.1, "beta": torch.full((3,), 0.5)}, r"beta has shape \(3,\)"),
        ({"gamma": torch.full((2, 2), 0.1)}, r"gamma has shape \(2, 2\)"),
        ({"gamma": 0.1, "previous": [torch.zeros(3)]}, "previous has shapes"),
    ],
)
def test_bad_input_is_refused(keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        HeavyBall([nn.Parameter(torch.zeros(2))], **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight_decay": 0.1}, "unknown key weight_decay in a group"),
        ({"dampening": 0.9, "maximize": True}, "unknown key dampening, maximize in a group"),
        ({"gamma": 0.1, "lr": 0.2}, "gamma and lr are two names of one number"),
        ({"beta": 0.1, "momentum": 0.2}, "beta and momentum are two names of one number"),
        ({"lr": -1.0}, "gamma = -1.0"),
        ({"gamma": -1.0}, "gamma = -1.0"),
        ({"beta": torch.zeros(5)}, "beta has shape"),
    ],
)
def test_a_bad_group_is_refused_and_leaves_the_optimizer_as_it_was(
    keys: dict, message: str
) -> None:
    """Torch itself passes over keys it does not know: a weight decay would be lost in silence."""
    optimizer = HeavyBall([nn.Parameter(torch.zeros(2))], 0.1, 0.5)
    with pytest.raises(InputError, match=message):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], **keys})
    assert len(optimizer.param_groups) == 1


def test_the_callers_tensors_are_left_alone() -> None:
    """A scheduler writes into a tensor; two groups and the caller must not share one."""
    gamma = torch.tensor(0.1, dtype=torch.float64)
    groups = [{"params": [nn.Parameter(torch.ones(2))]} for _ in range(2)]
    optimizer = HeavyBall(groups, gamma)
    w_0 = nn.Parameter(torch.zeros(2))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert gamma.item() == 0.1
    assert [group["lr"].item() for group in optimizer.param_groups] == [0.05, 0.05]
    w = nn.Parameter(torch.ones(2))
    started = HeavyBall([w], 0.1, 0.5, previous=[w_0])
    assert not started.state[w]["increment"].requires_grad


def test_a_step_size_a_run_can_be_changed_on_the_way() -> None:
    w = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    optimizer = HeavyBall([w], torch.tensor([0.1, 0.2], dtype=torch.float64))
    optimizer.param_groups[0]["lr"].mul_(0.5)
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert w[:, 0].tolist() == [1 - 0.05, 1 - 0.1]


@pytest.mark.parametrize("gamma", [0.1, torch.full((5,), 0.1, dtype=torch.float64)])
def test_sparse_gradients_are_the_dense_ones(gamma: float | Tensor) -> None:
    weights = []
    for sparse in (False, True):
        table = nn.Embedding.from_pretrained(
            torch.ones(5, 3, dtype=torch.float64), freeze=False, sparse=sparse
        )
        optimizer = HeavyBall(table.parameters(), gamma, 0.9)
        for row in range(3):
            optimizer.zero_grad()
            table(torch.tensor([1, 1, row])).sum().backward()
            optimizer.step()
        weights.append(table.weight.detach())
    # sums of at most three gradients, in another order
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-15, atol=1e-15)


def test_single_precision_parameters_stay_single() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = HeavyBall(
        [w], torch.tensor([0.1, 0.2], dtype=torch.float64), 0.5,
        previous=[torch.zeros(2, dtype=torch.float64)],
    )  # fmt: skip
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert w.dtype == optimizer.state[w]["increment"].dtype == torch.float32
    assert w.tolist() == pytest.approx([1.4, 1.3], rel=1e-6)
