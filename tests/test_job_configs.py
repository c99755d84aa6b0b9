"""The configs of a multirun's jobs are those that Hydra itself composes, however they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.command import Command
from dln_momentum.cli.job_configs import JobConfigs
from dln_momentum.config import CONF_DIR, config_hash


@pytest.fixture(scope="module")
def hydra() -> Iterator[tuple[HydraContext, DictConfig]]:
    """Hydra as it hands over to a launcher, and the config of a multirun."""
    before = HydraConfig.instance().cfg
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        found = GlobalHydra.instance().hydra
        assert found is not None
        context = HydraContext(config_loader=found.config_loader, callbacks=Callbacks())
        yield (
            context,
            found.config_loader.load_configuration(
                "train", ["hydra.sweep.dir=jobs"], run_mode=RunMode.MULTIRUN
            ),
        )
    HydraConfig.instance().cfg = before


def own(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return OmegaConf.to_container(copy, resolve=resolve)  # type: ignore[return-value]


JOBS: dict[str, list[list[str]]] = {
    "numbers": [
        ["optimizer.gamma=0.01", "seed=3", "sampling.batch_size=null"],
        ["optimizer.gamma=2e-2", "seed=4", "sampling.batch_size=5"],
    ],
    "text, lists and groups": [
        ["data=file", "data.path=a.csv", "model=arrays", "model.u=[1,2]", "model.v=[0.5,1]"],
        ["data=file", "data.path='b c.csv'", "model=arrays", "model.u=[3]", "model.v=[1]"],
    ],
    "keys that are added": [
        ["+callbacks.own._target_=a.B", "optimizer.beta=0.5"],
        ["+callbacks.own._target_=a.B", "optimizer.beta=0.9"],
    ],
    "text that is no text, flags and lists in lists": [
        ["name='null'", "outputs.figure=true", "paths.root='1e-3'", "trainer.margin=1e-3"],
        ["name='5'", "outputs.figure=false", "paths.root=null", "trainer.margin=null"],
    ],
    "values in lists": [
        ["data=digits", "data.classes=[[0],[1,2]]", "model=arrays", "model.u=[[1,2],[3,4]]"],
        ["data=digits", "data.classes=[a,'b c']", "model=arrays", "model.u=[]"],
    ],
    "references": [["data.seed=${seed}", "seed=1"], ["data.seed=${seed}", "seed=2"]],
}


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_has_the_config_that_hydra_composes(
    kind: str, hydra: tuple[HydraContext, DictConfig]
) -> None:
    context, config = hydra
    configs, command = JobConfigs(context, config), Command("train", lambda job: {})
    first = OmegaConf.to_container(configs.composed(JOBS[kind][0], 7).config, resolve=False)
    for number, words in enumerate(JOBS[kind]):
        expected = context.config_loader.load_sweep_config(config, words)
        composed = configs.composed(words, number)
        assert own(composed.config, resolve=False) == own(expected, resolve=False)
        # only what refers to other keys is left to OmegaConf
        assert (composed.values is None) == (kind == "references")
        assert composed.values in (None, own(expected))
        job = command.job_of(composed)
        assert (job.values, job.config) == (own(expected), OmegaConf.create(own(expected)))
        assert job.config_hash == config_hash(OmegaConf.create(own(expected)))
        assert job.overrides == words
        assert composed.config.hydra.job.num == number
    # nothing of one job is left in another
    again = OmegaConf.to_container(configs.composed(JOBS[kind][0], 7).config, resolve=False)
    for found in (first, again):
        found["hydra"]["runtime"]["output_dir"] = None  # type: ignore[index, call-overload]
    assert again == first


def test_values_of_jobs_share_what_they_have_in_common(
    hydra: tuple[HydraContext, DictConfig],
) -> None:
    """So that a thousand jobs take little memory, and nothing must write to them."""
    configs = JobConfigs(*hydra)
    one, other = (configs.composed([f"seed={seed}"], seed).values for seed in (1, 2))
    assert one is not None
    assert other is not None
    assert (one["seed"], other["seed"]) == (1, 2)
    assert one["data"] is other["data"]
