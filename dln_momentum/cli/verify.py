"""``dln-verify``: judge every statement of the theory on one problem; exit code 1 if one fails."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dln_momentum.cli.job import answers_renamed_keys, run_job
from dln_momentum.config import CONF_DIR, register_resolvers

register_resolvers()


@answers_renamed_keys
@hydra.main(config_path=str(CONF_DIR), config_name="verify", version_base="1.3")
def main(config: DictConfig) -> None:
    """Compose the config, check it, and verify."""
    result = run_job(config, "dln_momentum.apps.verify:verify", result="verify.json")
    if result["status"] == "violated":
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            # an exit would end the other jobs with this one
            raise RuntimeError(f"VIOLATED: {'; '.join(result['violated'])}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
