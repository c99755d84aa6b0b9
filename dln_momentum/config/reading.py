"""From what Hydra composed to dataclasses, with every complaint at once."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

from dln_momentum.config.checks import problems
from dln_momentum.config.renamed import renamed_problems
from dln_momentum.config.schema import DATA, MODELS, App, Train

T = TypeVar("T", bound=App)


def read(config: DictConfig, errors: list[str], schema: type[T] = Train) -> T:
    """The config as dataclasses; what is wrong with it is added to ``errors``, a line each.

    Keys that are unknown, missing, of a wrong type or out of range are complained about, all of
    them; where there are errors, the result is not to be used. Whether the optimizer's keys
    and the axes of a sweep fit together is judged by `dln_momentum.sweeps.grid`.
    """
    sections = {
        "data": _schema("data.kind", config.data.get("kind"), DATA, errors),
        "model": _schema("model.init", config.model.get("init"), MODELS, errors),
        **{f.name: f.default_factory for f in fields(schema) if is_dataclass(f.default_factory)},
    }
    filled = {key: _fill(key, config[key], kind, errors) for key, kind in sections.items()}
    top = OmegaConf.masked_copy(config, [str(key) for key in config if key not in sections])
    result = _fill("", top, schema, errors)
    for key, section in filled.items():
        setattr(result, key, section)
    errors.extend(problems(result))
    return result


def _schema(key: str, name: Any, schemas: dict[str, type], errors: list[str]) -> type | None:
    if name not in schemas:
        errors.append(f"{key} = {name!r} must be one of {', '.join(schemas)}")
    return schemas.get(name)


def _fill(section: str, values: Any, schema: type | None, errors: list[str]) -> Any:
    """A dataclass with every value that fits its schema; the others are complained about."""
    if schema is None:
        return None
    node = OmegaConf.structured(schema)
    for key in values:
        name = f"{section}.{key}" if section else key
        if OmegaConf.is_missing(values, key):
            errors.append(f"{name} must be given")
            continue
        try:
            node[key] = values[key]
        except (ConfigAttributeError, ConfigKeyError):
            unknown = f"{name} is no key here; the keys are {', '.join(map(str, node))}"
            errors.append(next(renamed_problems([name]), unknown))
        except ValidationError:
            kind = next(f.type for f in fields(schema) if f.name == key)
            errors.append(f"{name} = {values[key]!r} must be of type {kind}")
    return schema(**cast(dict[str, Any], OmegaConf.to_container(node)))
