"""The configs of the jobs of a multirun, composed once for all that choose the same groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def composed(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> Iterator[DictConfig]:
    """The config of each job, as ``load_sweep_config`` makes it.

    Hydra takes a tenth of a second to compose a config. What most jobs of a multirun differ in are
    values of keys: they are set in a copy of a config composed with the same keys and groups.

    Args:
        context: Hydra's.
        config: of the multirun.
        job_overrides: of each job.
        first: the number of the first job.
    """
    parser, loader = OverridesParser.create(), context.config_loader

    @cache
    def is_group(key: str) -> bool:
        return bool(loader.list_groups(key) or loader.get_group_options(key))

    made: dict[tuple[object, ...], DictConfig] = {}
    for number, words in enumerate(job_overrides, first):
        given = parser.parse_overrides(list(words))
        values = [o for o in given if _sets_a_value(o) and not is_group(o.key_or_group)]
        others = [o.input_line for o in given if o not in values]
        alike = (*others, *(o.key_or_group for o in values))
        if alike not in made:
            made[alike] = loader.load_sweep_config(config, list(words))
        found = made[alike].copy()
        with read_write(found), open_dict(found):
            for override in values:
                OmegaConf.update(found, override.key_or_group, override.value(), merge=True)
            job = found.hydra.job
            job.id = job.num = number
            task = [o for o in given if not o.is_hydra_override()]
            found.hydra.overrides.task = [o.input_line for o in task]
            naming = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(
                overrides=task,
                kv_sep=naming.kv_sep,
                item_sep=naming.item_sep,
                exclude_keys=naming.exclude_keys,
            )
        yield found


def _sets_a_value(override: Override) -> bool:
    """Whether an override gives a key of ours, that is there, a value."""
    adds = override.is_add() or override.is_force_add() or override.is_delete()
    return not (adds or override.package or override.is_hydra_override())
