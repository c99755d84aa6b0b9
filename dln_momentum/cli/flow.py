"""``dln-flow``: follow one network in continuous time and leave its numbers, history and figure."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from dln_momentum.cli.job import answers_renamed_keys, run_job
from dln_momentum.config import CONF_DIR, register_resolvers

register_resolvers()


@answers_renamed_keys
@hydra.main(config_path=str(CONF_DIR), config_name="flow", version_base="1.3")
def main(config: DictConfig) -> None:
    """Compose the config, check it, and integrate."""
    run_job(config, "dln_momentum.apps.flow:flow")


if __name__ == "__main__":
    main()
