"""The configs of the jobs of a multirun, composed once for all that choose the same groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class JobConfigs:
    """Composes jobs' configs as ``load_sweep_config`` of Hydra does, most of them without it.

    Hydra takes a tenth of a second to compose a config. What most jobs of a multirun differ in are
    values of keys: they are set in a config composed with the same keys and groups.

    Args:
        context: Hydra's.
        config: of the multirun.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self._loader, self._config = context.config_loader, config
        self._made: dict[tuple[object, ...], DictConfig] = {}
        self._is_group = cache(self._names_a_group)

    def composed(self, words: Sequence[str], number: int) -> DictConfig:
        """The config of a job, which the next call may change.

        Args:
            words: its overrides.
            number: of the job in the multirun.
        """
        given = self._parser.parse_overrides(list(words))
        values = [o for o in given if _sets_a_value(o) and not self._is_group(o.key_or_group)]
        # no copy: the next job sets the same keys
        found = self._like(given, values)
        # Hydra has made its own section read-only for the job before
        with read_write(found), read_write(found.hydra), open_dict(found):
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
        return found

    def check(self, words: Sequence[str]) -> None:
        """Compose a config of these keys and groups, if there has been none.

        Raises:
            HydraException: where they cannot be composed.
        """
        given = self._parser.parse_overrides(list(words))
        values = [o for o in given if _sets_a_value(o) and not self._is_group(o.key_or_group)]
        self._like(given, values)

    def _like(self, given: Sequence[Override], values: Sequence[Override]) -> DictConfig:
        """A config with the same groups and the same keys set."""
        others = [o.input_line for o in given if o not in values]
        alike = (*others, *(o.key_or_group for o in values))
        if alike not in self._made:
            words = [str(o.input_line) for o in given]
            self._made[alike] = self._loader.load_sweep_config(self._config, words)
        return self._made[alike]

    @cached_property
    def _parser(self) -> OverridesParser:
        return OverridesParser.create()

    def _names_a_group(self, key: str) -> bool:
        return bool(self._loader.list_groups(key) or self._loader.get_group_options(key))


def _sets_a_value(override: Override) -> bool:
    """Whether an override gives a key of ours, that is there, a value which replaces it."""
    adds = override.is_add() or override.is_force_add() or override.is_delete()
    if adds or override.package or override.is_hydra_override():
        return False
    # a dictionary is merged into what is there: that must not be another job's
    return not isinstance(override.value(), dict)
