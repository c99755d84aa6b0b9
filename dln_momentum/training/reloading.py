"""What a checkpoint holds beside the state of its run: what the run can be made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import EngineOptions
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem
from dln_momentum.problem_checks import TENSORS
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.datamodule import BlockDataModule

LARGEST = 2**20
"""Bytes of data and first weights up to which a checkpoint holds them."""


def hyper_parameters(
    rates: Mapping[str, float | Tensor],
    data: BlockDataModule,
    options: EngineOptions,
    **others: Any,
) -> dict[str, Any]:
    """Every setting of a run as numbers, text and lists of them, as Lightning keeps them."""
    noise = data.label_noise
    return {
        **{
            name: torch.as_tensor(rate, dtype=torch.float64).tolist()
            for name, rate in rates.items()
        },
        "options": asdict(options),
        "plan": asdict(data.plan),
        "batches": _plain(data.batches),
        "label_noise": None if noise is None else _plain(noise),
        **others,
    }


def origin(net: nn.Module, data: BlockDataModule) -> dict[str, Any] | None:
    """The data and the first weights of a run; None where they are large, or the net is another's.

    Runs on several problems have none either: their checkpoints would hold all of them.
    """
    problem = data.problems
    if not isinstance(net, DiagonalLinearNet) or not isinstance(problem, Problem):
        return None
    tensors = {name: getattr(problem, name) for name in TENSORS}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    start = {"u": net.u.detach(), "v": net.v.detach()}
    size = sum(
        value.numel() * value.element_size() for value in [*tensors.values(), *start.values()]
    )
    if size > LARGEST:
        return None
    saved = {name: value.to("cpu", copy=True) for name, value in (tensors | start).items()}
    return saved | {"name": problem.name, "loss": problem.loss_name}


def remade(
    checkpoint: Mapping[str, Any], data: BlockDataModule | None, net: nn.Module | None
) -> tuple[nn.Module, BlockDataModule]:
    """The network as it started and the data of a checkpoint, or those that are given.

    Raises:
        InputError: for what the checkpoint lacks and is not given.
    """
    saved = checkpoint.get("origin")
    settings = checkpoint.get("hyper_parameters")
    if not isinstance(settings, Mapping) or "plan" not in settings:
        raise InputError("the checkpoint is not one of HeavyBallModule")
    if saved is None:
        raise_if_any(
            f"the checkpoint holds no {what}: it is of a network or of data of one's own, of "
            f"several data sets, or larger than {LARGEST // 2**20} MiB; give {key}="
            for key, what, value in (("data", "data", data), ("net", "first weights", net))
            if value is None
        )
        assert net is not None
        assert data is not None
        return net, data
    if data is None:
        noise = settings["label_noise"]
        data = BlockDataModule(
            Problem(
                **{name: saved.get(name) for name in TENSORS},
                name=saved["name"],
                # checkpoints before there were others have none
                loss=saved.get("loss", "squared"),
            ),
            RecordPlan(**settings["plan"]),
            BatchStream(**settings["batches"]),
            None if noise is None else LabelNoise(**noise),
        )
    depth = settings.get("method", {}).get("depth", 2.0)
    return net or DiagonalLinearNet(saved["u"], saved["v"], depth), data


def _plain(stream: BatchStream | LabelNoise) -> dict[str, Any]:
    seeds = stream.seeds if isinstance(stream.seeds, int) else [int(seed) for seed in stream.seeds]
    return asdict(stream) | {"seeds": seeds}
