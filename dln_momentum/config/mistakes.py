"""What is wrong with a command line that Hydra refuses, in terms of the config's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.config.help import register_resolvers
from dln_momentum.config.known_keys import composed_keys, known_keys, unknown_key
from dln_momentum.config.location import CONF_DIR, initialised, options_of, unusable
from dln_momentum.config.momentum import with_pair
from dln_momentum.config.reading import leaves
from dln_momentum.config.renamed import renamed
from dln_momentum.errors import InputError
from dln_momentum.nearest import did_you_mean
from dln_momentum.rates import LAYERS, OF_THE_FLOW, RATES

PLUGINS = {
    "joblib": "launchers",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "optuna": "optuna",
}
"""Launchers and sweepers of Hydra's plugins, and the extra of this package that installs them."""

FREE = ("callbacks", "logger")
"""Sections whose keys are the user's own, which may be left out."""
OF_THE_COMMAND = ("hydra.callbacks", "hydra.callbacks.directories", "hydra.output_subdir")
"""Keys of Hydra with which a command keeps account of what it makes."""
COMPOSING = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    yaml.YAMLError,
)
"""What Hydra raises for overrides of which it composes no config."""


def mistakes(app: str, words: Sequence[str]) -> list[str]:
    """A line for each mistake in the overrides of a command.

    Args:
        app: the command's config, as ``train``.
        words: the overrides as they were typed, ``key=value`` each.

    >>> for line in mistakes("train", ["trainer.max_step=5", "engine=drect", "seed 5"]):
    ...     print(line)
    'seed 5' must be key=value
    engine=drect: no such option (did you mean direct?); options of engine: direct, gradient_sum,
    telescoped
    unknown key trainer.max_step (did you mean trainer.max_steps?)
    """
    register_resolvers()
    parser, overrides, found = OverridesParser.create(), list[Override](), list[str]()
    for word in words:
        try:
            if not _key(word):
                raise OverrideParseException(word, "no key")
            overrides += parser.parse_overrides([word])
        except OverrideParseException:
            found.append(f"{word!r} {_unreadable(word)}")
    found += [f"{o.input_line!r} must be key=value" for o in overrides if not o.key_or_group]
    overrides = [o for o in overrides if o.key_or_group]
    with initialised():
        groups = composed_keys(app).groups
        chosen = [o for o in overrides if _is_group(o.key_or_group) and not _gives_keys(o)]
        rest = [o for o in overrides if o not in chosen]
        wrong = {o.key_or_group: [*_group_mistakes(app, o, groups)] for o in chosen}
        found += [line for lines in wrong.values() for line in lines]
        choices = [
            f"{o.key_or_group}={value}"
            for o in chosen
            if not wrong[o.key_or_group]
            for value in _values(o)
        ]
        try:
            added = with_pair(app, words)[len(words) :]
        except InputError as error:
            found += error.problems
            added, rest = [], _without_rates(rest)
        except COMPOSING as error:
            found = found or [first_line(app, error)]
            added, rest = [], _without_rates(rest)
        try:
            found += _key_mistakes(app, rest, [*choices, *added], groups)
        except COMPOSING as error:
            found += [] if found else [first_line(app, error)]
    return found


def sound_words(app: str, words: Sequence[str]) -> list[str]:
    """The overrides that are right by themselves, beside the options that are.

    >>> sound_words("train", ["trainer.max_step=5", "data.n=abc", "data=file", "data.path=a.csv"])
    ['data=file', 'data.path=a.csv']
    """
    chosen = [word for word in words if _is_group(_key(word)) and not mistakes(app, [word])]
    others = [word for word in words if not _is_group(_key(word))]
    right = {*chosen, *(word for word in others if not mistakes(app, [*chosen, word]))}
    found = [word for word in words if word in right]
    if _is_no_pair(app, found):
        return [word for word in found if not _key(word).startswith("optimizer.")]
    return found


def _is_no_pair(app: str, words: Sequence[str]) -> bool:
    """Whether the rates among some words are not those of a run."""
    try:
        with initialised():
            with_pair(app, words)
    except InputError:
        return True
    return False


def is_mistaken(app: str, word: str) -> bool:
    """Whether Hydra would take an override that leaves out or empties what a command needs.

    >>> words = ("~data", "trainer={}", "~callbacks.best", "data=digits", "optimizer=of_flow")
    >>> [is_mistaken("train", word) for word in words]
    [True, True, False, False, True]
    """
    key, value = _key(word), word.partition("=")[2].strip()
    if not key or key.partition("@")[0] != key:
        return True
    if word[0] == "~":
        return key.partition(".")[0] not in FREE or "." not in key
    if _is_of_the_command(key) or _is_unknown_to_hydra(key):
        return True
    if (CONF_DIR / key).is_dir() and (value.endswith(".yaml") or "../" in value):
        return True
    if value in unusable(key, app):
        return True
    is_section = (CONF_DIR / key).is_dir() or re.match(r"hydra\b", key) is not None
    return is_section and value in ("null", "{}")


def in_words(app: str, error: Exception, words: Sequence[str]) -> list[str]:
    """The mistakes behind an exception of Hydra; its own first line where none is recognised."""
    return mistakes(app, words) or [first_line(app, error)]


def first_line(app: str, error: Exception) -> str:
    """What an exception of Hydra or OmegaConf says, in words of the command where they help."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    if isinstance(cause, yaml.MarkedYAMLError) and (mark := cause.problem_mark) is not None:
        return f"{mark.name}, line {mark.line + 1}: {cause.problem or 'no YAML'}"
    if isinstance(cause, yaml.reader.ReaderError):
        return f"{cause.name} is no YAML: {lines[0]}"
    if not isinstance(cause, HydraException | OmegaConfBaseException):
        return f"these overrides compose no config: {lines[0]}"
    if missing := re.match(r"In '(\w+)/(\w+)': Could not override '(\w+)'", lines[0]):
        group, option, changed = missing.groups()
        return f"{group}={option} chooses {changed}, a group that dln-{app} does not have"
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", lines[0]):
        key, values = several.groups()
        return f"{key}={values} are several values: {key}=[{values}] is a list, -m a job for each"
    if app == "sweep" and re.match(r"Interpolation key 'sweep\.\w+' not found", lines[0]):
        return "the file of sweep= must begin with the line defaults: [grid, _self_]"
    key = getattr(cause, "full_key", None)
    return f"{key}: {lines[0]}" if key and str(key) not in lines[0] else lines[0]


def _without_rates(overrides: Sequence[Override]) -> list[Override]:
    rates = {f"optimizer.{name}" for name in (*RATES, *LAYERS)}
    return [o for o in overrides if o.key_or_group not in rates]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").strip()


def _is_of_the_command(key: str) -> bool:
    return key in OF_THE_COMMAND or key.startswith(f"{OF_THE_COMMAND[1]}.")


def _is_unknown_to_hydra(key: str) -> bool:
    """Whether a key is of a section that Hydra does not have, and would take with a plus."""
    section, _, rest = key.partition(".")
    return section == "hydra" and rest.partition(".")[0] not in ("", *HydraConf.__annotations__)


def _unreadable(word: str) -> str:
    """What is wrong with a word that Hydra's grammar does not allow."""
    if "=" not in word or not re.fullmatch(r"[\w$/@-]+(\.[\w$-]+)*", _key(word)):
        return "must be key=value"
    return "has no value that can be read; a text with any of ,:={}[]() needs quotes: 'key=\"...\"'"


def _is_group(key: str) -> bool:
    is_plugin = key.startswith("hydra/")
    is_folder = key not in ("", "hydra") and (CONF_DIR / key).is_dir()
    return is_plugin or is_folder or renamed(key) is not None


def _gives_keys(override: Override) -> bool:
    """Whether an override of a group names keys, as ``trainer={max_steps: 5}``."""
    return not override.is_sweep_override() and bool(
        isinstance(override.value(), dict) and override.value()
    )


def _group_mistakes(app: str, override: Override, groups: Sequence[str]) -> Iterator[str]:
    group = override.key_or_group
    if override.package is not None:
        yield f"{group}@{override.package}: a group has one place; write {group}=OPTION"
        return
    if group.startswith("hydra/"):
        yield from _plugin_mistakes(override)
        return
    if line := renamed(group):
        yield line
        return
    if group not in groups:
        meant = f" (did you mean flow.{OF_THE_FLOW}?)" if group == "optimizer" else ""
        yield f"dln-{app} has no group {group}{meant}; its groups: {', '.join(sorted(groups))}"
        return
    if override.is_add():
        yield f"{group} is there: leave out the +, {group}={override.get_value_element_as_str()}"
        return
    if override.is_delete():
        options = ", ".join(options_of(group, app))
        yield f"~{group}: a group cannot be left out; options of {group}: {options}"
        return
    for value in _values(override):
        if value == {}:
            options = ", ".join(options_of(group, app))
            yield f"{group}={{}} gives no key; options of {group}: {options}"
        elif line := renamed(f"{group}={value}"):
            yield line
        elif wrong := [each for each in _listed(value) if each not in options_of(group, app)]:
            value, options = wrong[0], options_of(group, app)
            yield (
                f"{group}={'null' if value is None else value}: "
                f"no such option{did_you_mean(str(value), options)}; "
                f"options of {group}: {', '.join(options)}"
            )


def _plugin_mistakes(override: Override) -> Iterator[str]:
    """Of ``hydra/launcher=`` and other groups of Hydra, what no installed plugin has."""
    group, value = override.key_or_group, None if override.is_delete() else override.value()
    options = GlobalHydra.instance().config_loader().get_group_options(group)
    if value in options:
        return
    if extra := PLUGINS.get(str(value)):
        yield f"{group}={value} needs a package: pip install 'dln-momentum[{extra}]'"
    else:
        near = did_you_mean(str(value), [*options, *PLUGINS])
        shown = "null" if value is None else value
        yield f"{group}={shown}: no such option{near}; options of {group}: {', '.join(options)}"


def _key_mistakes(
    app: str, overrides: Sequence[Override], choices: Sequence[str], groups: Sequence[str]
) -> Iterator[str]:
    known = known_keys(app, choices) if overrides else []
    for override, key in ((o, key) for o in overrides for key in _keys_of(o)):
        if line := renamed(key):
            yield line
        elif key.startswith("hydra/") or (override.is_add() and _is_of_the_user(key)):
            continue
        elif _is_of_the_command(key):
            yield f"{key} cannot be changed: the command needs it to leave nothing behind"
        elif override.is_delete() and key in ("hydra", *groups, *known):
            yield f"~{key}: a key cannot be left out; give it a value, as {key}=VALUE"
        elif override.is_delete() and any(name.startswith(f"{key}.") for name in known):
            yield f"~{key}: a section cannot be left out"
        elif key.startswith("hydra") and override.value() in ({}, None):
            yield f"{key}={'null' if override.value() is None else '{}'} must be left as it is"
        elif key not in known and not any(name.startswith(f"{key}.") for name in known):
            yield unknown_key(key, known, groups)
        elif override.is_add() and not override.is_force_add():
            yield f"{key} is there: leave out the +"


def _is_of_the_user(key: str) -> bool:
    """Whether a key is one that a user may add, below `FREE`."""
    return key.partition(".")[0] in FREE and "." in key


def _keys_of(override: Override) -> list[str]:
    """The keys that an override sets; several where its value is a dictionary of a group."""
    if not _is_group(override.key_or_group):
        return [override.key_or_group]
    config = OmegaConf.create({override.key_or_group: override.value()})
    return list(leaves(config))


def _listed(value: object) -> list[object]:
    """The options that the value of a group names: one, or a list."""
    return list(value) if isinstance(value, list) and value else [value]


def _values(override: Override) -> list[object]:
    """The values of an override: one, or those of its sweep over choices."""
    if override.is_sweep_override():
        return list(override.sweep_iterator())
    value = override.value()
    return [OmegaConf.to_container(value) if OmegaConf.is_config(value) else value]
