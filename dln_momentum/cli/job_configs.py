"""The configs of the jobs of a multirun, composed once for all that choose the same groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf


class Composed(NamedTuple):
    """The config of a job, which the next job's may change."""

    config: DictConfig
    values: dict[str, Any] | None
    """all of it but the section ``hydra``, which stays as it is; None where values refer to others
    or are missing"""


class JobConfigs:
    """Composes jobs' configs as ``load_sweep_config`` of Hydra does, most of them without it.

    Hydra takes a tenth of a second to compose a config. What most jobs of a multirun differ in are
    values of keys: they are set in a config composed with the same keys and groups.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self._loader, self._config = context.config_loader, config
        self._made: dict[tuple[object, ...], Composed] = {}
        loader = self._loader
        self._is_group = cache(lambda key: loader.list_groups(key) or loader.get_group_options(key))

    def composed(self, words: Sequence[str], number: int) -> Composed:
        """The config of a job with these overrides, and its number in the multirun."""
        given, set_here = self._parsed(words)
        found, values = self._like(given, set_here)
        for override in set_here:
            OmegaConf.update(found, override.key_or_group, override.value(), merge=True)
            if values is not None:
                values = _with(values, override.key_or_group.split("."), override.value())
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
        return Composed(found, values)

    def check(self, words: Sequence[str]) -> None:
        """Compose a config of these keys and groups, if there has been none.

        Raises:
            HydraException: where they cannot be composed.
        """
        self._like(*self._parsed(words))

    def _parsed(self, words: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """The overrides, and those of them that set a value."""
        given = [_override(word) for word in words]
        return given, [o for o in given if _sets_a_value(o) and not self._is_group(o.key_or_group)]

    def _like(self, given: Sequence[Override], set_here: Sequence[Override]) -> Composed:
        """A config with the same groups and the same keys set."""
        others = [o.input_line for o in given if o not in set_here]
        alike = (*others, *(o.key_or_group for o in set_here))
        if alike not in self._made:
            words = [str(o.input_line) for o in given]
            found = self._loader.load_sweep_config(self._config, words)
            # for good: the next job sets the same keys, and unsetting flags walks all nodes
            OmegaConf.set_readonly(found, False)
            OmegaConf.set_readonly(found.hydra, False)
            OmegaConf.set_struct(found, False)
            own = OmegaConf.masked_copy(found, [str(key) for key in found if key != "hydra"])
            values: Any = OmegaConf.to_container(own, resolve=False)
            self._made[alike] = Composed(found, values if _is_settled(values) else None)
        return self._made[alike]


@cache
def _override(word: str) -> Override:
    """A word as Hydra parses it, which takes it a millisecond: for the check, and for the job."""
    (found,) = OverridesParser.create().parse_overrides([word])
    return found


def _sets_a_value(override: Override) -> bool:
    """Whether an override gives a key of ours, that is there, a value which replaces it."""
    adds = override.is_add() or override.is_force_add() or override.is_delete()
    if adds or override.package or override.is_hydra_override():
        return False
    # a dictionary is merged into what is there: that must not be another job's
    return not isinstance(override.value(), dict)


def _with(values: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any] | None:
    """A copy with one value replaced, which shares all else; None where it may mean more."""
    key, *rest = path
    if not isinstance(values, dict) or key not in values:
        return None
    if rest:
        value = _with(values[key], rest, value)
        return None if value is None else {**values, key: value}
    plain = isinstance(value, int | float | str | list | None) and _is_settled(value)
    return {**values, key: value} if plain else None


def _is_settled(value: Any) -> bool:
    """Whether nothing in a value refers to another, or is missing."""
    if isinstance(value, dict):
        return all(map(_is_settled, value.values()))
    if isinstance(value, list):
        return all(map(_is_settled, value))
    return not isinstance(value, str) or not ("${" in value or value == "???")
