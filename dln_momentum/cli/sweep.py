"""``dln-sweep``: train every network of a grid at once and keep their numbers in one file."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from dln_momentum.cli.job import answers_renamed_keys, run_job
from dln_momentum.config import CONF_DIR, register_resolvers

register_resolvers()


@answers_renamed_keys
@hydra.main(config_path=str(CONF_DIR), config_name="sweep", version_base="1.3")
def main(config: DictConfig) -> None:
    """Compose the config, check it, and sweep."""
    run_job(config, "dln_momentum.sweeps.run:sweep")


if __name__ == "__main__":
    main()
