"""The balances of networks beyond the diagonal one, as `HeavyBall` and torch's SGD train them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import dln_momentum as dln
from dln_momentum.data import BatchStream
from dln_momentum.interface.balance_recorder import Balance, BalanceRecorder, balances_of
from dln_momentum.record_plan import RecordPlan
from dln_momentum.theory.balances import product_form
from dln_momentum.training.callbacks import BalanceMonitor
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import HeavyBallModule

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(12, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(12, 2, generator=GENERATOR, dtype=torch.float64)


class Product(nn.Module):
    """theta = u_1 u_2 u_3 with layers of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList(
            scale * torch.ones(4, dtype=torch.float64) for scale in (0.2, 0.5, 0.9)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        return x @ (first * second * third)[:, None]


def stack(*between: nn.Module, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    last = nn.Linear(6, 2, bias=bias)
    return nn.Sequential(nn.Linear(4, 6, bias=bias), *between, last).double()


def of_product(net: Product) -> list[Balance]:
    first, second, third = net.layers
    return [
        Balance("1 and 2", product_form, [first, second]),
        Balance("2 and 3", product_form, [second, third]),
    ]


NETWORKS: dict[str, Any] = {
    "relu": lambda: stack(nn.ReLU()),
    "leaky relu without biases": lambda: stack(nn.LeakyReLU(0.2), bias=False),
    "deep linear": lambda: stack(nn.Linear(6, 6).double()),
    "product": Product,
}
OPTIMIZERS: dict[str, Any] = {
    "heavy ball": lambda p: dln.HeavyBall(p, 0.02, 0.9),
    "torch": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.2, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(
        p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
}


def train(net: nn.Module, optimizer: Any, steps: int, scheduler: Any = None) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        rows = torch.randperm(12, generator=generator)[:4]
        optimizer.zero_grad()
        (net(X[rows]) - Y[rows]).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@pytest.mark.parametrize("how", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_balances_are_functions_of_the_increments(name: str, how: str) -> None:
    net = NETWORKS[name]()
    optimizer = OPTIMIZERS[how](net.parameters())
    scheduler = None if how == "nesterov" else schedulers.StepLR(optimizer, 20, gamma=0.5)
    balances = of_product(net) if name == "product" else balances_of(net)
    train(net, optimizer, 3)  # the buffers it holds are an initial speed
    recorder = BalanceRecorder(optimizer, balances)
    assert recorder.error() == 0
    train(net, optimizer, 60, scheduler)
    # 60 steps of 1e-16, over balances that have moved by 1e-2 and more
    assert recorder.error() < 1e-12
    with torch.no_grad():
        balances[0].parameters[0][0] += 1e-9
    with pytest.raises(dln.InputError, match="was changed by something else"):
        recorder.error()


def test_another_form_is_not_conserved() -> None:
    """tanh is not homogeneous, and the bias of the first layer counts."""
    for net, parts in ((stack(nn.Tanh()), 3), (stack(nn.ReLU()), 2)):
        optimizer = dln.HeavyBall(net.parameters(), 0.05, 0.9)
        form = balances_of(stack(nn.ReLU()))[0].form
        of = [net.get_parameter(name) for name in ("0.weight", "2.weight", "0.bias")][:parts]
        recorder = BalanceRecorder(optimizer, [Balance("wrong", form, of)])
        train(net, optimizer, 40)
        assert recorder.error() > 1e-3


def test_what_has_no_balance_is_named() -> None:
    with pytest.raises(dln.InputError, match="no diagonal network and no nn"):
        balances_of(stack(nn.Tanh()))
    net = stack(nn.ReLU())
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    recorder = BalanceRecorder(optimizer, balances_of(net))
    train(net, optimizer, 1)
    with pytest.raises(dln.InputError, match="step 1: neurons 0 to 2 have different step sizes"):
        recorder.error()


def block_data() -> BlockDataModule:
    plan = RecordPlan(max_steps=60, records=5, block_size=20)
    problem = dln.sparse(5, 8, 1, seed=0)
    return BlockDataModule(problem, plan, BatchStream(5, None, "reshuffle", 0))


def trainer(monitor: BalanceMonitor, **given: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[monitor], **given,
    )  # fmt: skip


class Plain(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = stack(nn.ReLU())

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_callback_watches_any_module() -> None:
    monitor = BalanceMonitor()
    rows = torch.utils.data.TensorDataset(X, Y)
    run = trainer(monitor, max_epochs=4)
    run.fit(Plain(), torch.utils.data.DataLoader(rows, batch_size=4))
    assert 0 < monitor.balance_error < 1e-12
    assert float(run.callback_metrics["balance_error"]) == pytest.approx(monitor.balance_error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_the_callback_records_what_autograd_trains() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    for trained in (net, dln.DiagonalLinearNet.gaussian(8, 0.3, seed=0)):
        data = block_data()
        module = HeavyBallModule(trained, 0.01, 0.9, data, gradient="autograd")
        monitor = BalanceMonitor()
        trainer(monitor, max_epochs=-1).fit(module, data)
        errors = module.history.column("balance_error")
        assert len(errors) > 2
        # rounding of 1e-17, over balances that move by 1e-6 in one step and by 1e-3 in the end
        assert float(errors.max()) < 1e-9
        assert float(errors[-1].max()) < 1e-12
    data = block_data()
    module = HeavyBallModule(dln.DiagonalLinearNet.uniform(8, 0.1), 0.01, 0.9, data)
    with pytest.raises(dln.InputError, match="BalanceMonitor needs gradient = autograd"):
        trainer(BalanceMonitor(), max_epochs=-1).fit(module, data)
