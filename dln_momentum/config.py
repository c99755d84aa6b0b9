"""The typed schema of every config, and the checks that need no data.

Hydra composes `conf/`; `read` turns the result into these dataclasses and complains of unknown
keys, wrong types and values out of range, all together. Nothing here imports torch, so a mistyped
key is answered at once, and so is ``--help``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

from dln_momentum.momentum import Momentum, momentum_problems

DEFAULT_GAMMA, DEFAULT_BETA = 0.01, 0.9

T = TypeVar("T", bound="App")

_HERE = Path(__file__).resolve().parent
CONF_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""Beside the package in an installed wheel, else the repository's."""


@dataclass
class Data:
    """Keys that every data set shares."""

    kind: str = MISSING
    batch_size: int | None = None
    replacement: bool = True
    label_noise: float = 0.0
    noise_until: int = 0


@dataclass
class Sparse(Data):
    """Random rows, s-sparse theta*."""

    n: int = 20
    d: int = 30
    s: int = 3
    design: str = "gaussian"
    mu: float = 1.0
    rho: float = 0.5
    signal: Any = "gaussian"
    seed: int = 0
    n_test: int = 100


@dataclass
class File(Data):
    """The user's own .npz or .csv."""

    path: str = MISSING
    target: str | None = None
    standardise: bool = False


@dataclass
class Diabetes(Data):
    """Degree-2 expansion of scikit-learn's diabetes data."""

    n: int = 20
    seed: int = 0


@dataclass
class Digits(Data):
    """Two classes of scikit-learn's digits."""

    n: int = 30
    classes: list[int] = field(default_factory=lambda: [0, 1])
    seed: int = 0


@dataclass
class Model:
    """How the network starts."""

    init: str = MISSING


@dataclass
class Uniform(Model):
    """u_0 = sqrt(2) alpha, v_0 = 0."""

    alpha: float = 0.1


@dataclass
class Biased(Model):
    """u_0 = phi c, v_0 = c/phi, c = scale."""

    scale: float = 0.1
    phi: float = 0.03


@dataclass
class Gaussian(Model):
    """u_0, v_0 i.i.d. N(0, alpha^2)."""

    alpha: float = 0.1


@dataclass
class Arrays(Model):
    """u_0 and v_0 given."""

    u: list[float] | None = None
    v: list[float] | None = None
    path: str | None = None


@dataclass
class HeavyBallKeys:
    """Any one of the pairs that determine MGD(gamma, beta)."""

    gamma: float | None = None
    beta: float | None = None
    lam: float | None = None
    eps: float | None = None


@dataclass
class EngineKeys:
    """How runs are advanced."""

    backend: str = "auto"
    path_sums: str = "direct"
    tile_runs: int | None = None
    num_workers: int | None = None


@dataclass
class TrainerKeys:
    """How long, how often looked at, and on what device."""

    max_steps: int = 100_000
    tol: float = 1e-24
    divergence_bound: float = 1e10
    block_size: int = 2000
    records: int = 200
    gradient: str = "closed_form"
    accelerator: str = "cpu"
    checkpoint_every: int = 50_000
    progress: bool | None = None


@dataclass
class App:
    """What every app has."""

    data: Any = MISSING
    model: Any = MISSING
    seed: int = 0
    name: str = MISSING


@dataclass
class Train(App):
    """The whole config of ``dln-train``."""

    optimizer: HeavyBallKeys = field(default_factory=HeavyBallKeys)
    engine: EngineKeys = field(default_factory=EngineKeys)
    trainer: TrainerKeys = field(default_factory=TrainerKeys)
    resume: str | None = None
    name: str = "train"


@dataclass
class SweepKeys:
    """The axes of a grid: numbers, lists or spans; and what is kept of every run."""

    gamma: Any = None
    beta: Any = None
    lam: Any = None
    eps: Any = None
    alpha: Any = None
    seed: Any = None
    data_seed: Any = None
    trajectories: bool = False
    memory_gb: float = 8.0


@dataclass
class Sweep(Train):
    """The whole config of ``dln-sweep``."""

    sweep: SweepKeys = field(default_factory=SweepKeys)
    name: str = "sweep"


@dataclass
class FlowKeys:
    """Which flow, and how it is integrated."""

    lam: float | None = None
    method: str = "auto"
    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 100_000


@dataclass
class PathKeys(FlowKeys):
    """How far one flow goes, and how often it is looked at."""

    time: float | None = None
    tol: float = 1e-20
    records: int = 200


@dataclass
class Flow(App):
    """The whole config of ``dln-flow``."""

    flow: PathKeys = field(default_factory=PathKeys)
    name: str = "flow"


@dataclass
class Verify(App):
    """The whole config of ``dln-verify``."""

    optimizer: HeavyBallKeys = field(default_factory=HeavyBallKeys)
    flow: FlowKeys = field(default_factory=FlowKeys)
    max_steps: int | None = None
    tol: float = 1e-20
    name: str = "verify"


DATA = {"sparse": Sparse, "file": File, "diabetes": Diabetes, "digits": Digits}
MODELS = {"uniform": Uniform, "biased": Biased, "gaussian": Gaussian, "arrays": Arrays}


def register_resolvers() -> None:
    """Name the resolver that makes output directories unique: ``${run_id:}``."""
    if not OmegaConf.has_resolver("run_id"):
        OmegaConf.register_new_resolver("run_id", lambda: uuid4().hex[:6], use_cache=True)


def read(config: DictConfig, complaints: list[str], schema: type[T] = Train) -> T:
    """The config as dataclasses; what is wrong with it is added to ``complaints``, a line each.

    Keys that are unknown, missing, of a wrong type or out of range are complained about, all of
    them; where there are complaints, the result is not to be used. Whether the optimizer's keys
    and the axes of a sweep fit together is judged by `dln_momentum.sweep.grid`.
    """
    sections = {
        "data": _schema("data.kind", config.data.get("kind"), DATA, complaints),
        "model": _schema("model.init", config.model.get("init"), MODELS, complaints),
        **{f.name: f.default_factory for f in fields(schema) if is_dataclass(f.default_factory)},
    }
    filled = {key: _fill(key, config[key], kind, complaints) for key, kind in sections.items()}
    top = OmegaConf.masked_copy(config, [str(key) for key in config if key not in sections])
    result = _fill("", top, schema, complaints)
    for key, section in filled.items():
        setattr(result, key, section)
    complaints.extend(problems(result))
    return result


def _schema(key: str, name: Any, schemas: dict[str, type], complaints: list[str]) -> type | None:
    if name not in schemas:
        complaints.append(f"{key} = {name!r} must be one of {', '.join(schemas)}")
    return schemas.get(name)


def _fill(section: str, values: Any, schema: type | None, complaints: list[str]) -> Any:
    """A dataclass with every value that fits its schema; the others are complained about."""
    if schema is None:
        return None
    node = OmegaConf.structured(schema)
    for key in values:
        name = f"{section}.{key}" if section else key
        if OmegaConf.is_missing(values, key):
            complaints.append(f"{name} must be given")
            continue
        try:
            node[key] = values[key]
        except (ConfigAttributeError, ConfigKeyError):
            complaints.append(f"{name} is no key here; the keys are {', '.join(map(str, node))}")
        except ValidationError:
            kind = next(f.type for f in fields(schema) if f.name == key)
            complaints.append(f"{name} = {values[key]!r} must be of type {kind}")
    return schema(**cast(dict[str, Any], OmegaConf.to_container(node)))


def given_momentum(keys: HeavyBallKeys) -> dict[str, float]:
    """The pair that the config gives, completed by the default of gamma or beta."""
    given = {key: value for key, value in vars(keys).items() if value is not None}
    if set(given) <= {"gamma", "beta"}:
        given = {"gamma": DEFAULT_GAMMA, "beta": DEFAULT_BETA} | given
    return given


def momentum(keys: HeavyBallKeys) -> Momentum:
    """The momentum parameters of a checked config."""
    return Momentum.from_pair(**given_momentum(keys))


def problems(config: App) -> list[str]:
    """Everything that is wrong with a config before any data is read, one line each."""
    found = [*_model_problems(config.model)]
    if isinstance(config, Train):
        found += _engine_problems(config.engine)
        found += _trainer_problems(config.trainer)
        found += _resume_problems(config.resume)
    if isinstance(config, Sweep):
        found += _sweep_problems(config.sweep, config.trainer)
    elif isinstance(config, Train | Verify):
        found += momentum_problems("optimizer.", **given_momentum(config.optimizer))
    if isinstance(config, Flow | Verify):
        found += _flow_problems(config.flow)
    if isinstance(config, Flow):
        found += _path_problems(config.flow, config.data)
    if isinstance(config, Verify):
        found += _verify_problems(config)
    return found


def out_of_range(section: str, keys: Any, rules: Iterable[tuple[str, bool, str]]) -> Iterator[str]:
    """A line for each rule (key, holds, what is allowed) that does not hold."""
    for key, holds, allowed in rules:
        if not holds:
            yield f"{section}.{key} = {getattr(keys, key)!r} must be {allowed}"


def _model_problems(keys: Any) -> Iterator[str]:
    if isinstance(keys, Uniform | Gaussian):
        yield from out_of_range("model", keys, [("alpha", keys.alpha > 0, "> 0")])
    if isinstance(keys, Biased):
        rules = [
            ("scale", keys.scale > 0, "> 0"),
            ("phi", keys.phi > 0 and keys.phi != 1, "> 0 and not 1 (phi = 1 makes Delta_0 = 0)"),
        ]
        yield from out_of_range("model", keys, rules)
    if isinstance(keys, Arrays):
        lists = keys.u is not None and keys.v is not None
        if lists == (keys.path is not None) or (keys.u is None) != (keys.v is None):
            yield "model: give either both of model.u and model.v, or model.path"
        if keys.path is not None and not Path(keys.path).is_file():
            yield f"model.path = {keys.path!r} must be an existing .npz with arrays u and v"


def _engine_problems(keys: EngineKeys) -> Iterator[str]:
    return out_of_range(
        "engine",
        keys,
        [
            ("backend", keys.backend in BACKENDS, f"one of {', '.join(BACKENDS)}"),
            ("path_sums", keys.path_sums in PATH_SUMS, f"one of {', '.join(PATH_SUMS)}"),
            ("tile_runs", keys.tile_runs is None or keys.tile_runs >= 1, ">= 1 or null"),
            ("num_workers", keys.num_workers is None or keys.num_workers >= 1, ">= 1 or null"),
        ],
    )


BACKENDS = ("auto", "torch", "numba")
PATH_SUMS = ("direct", "n_space")
GRADIENTS = ("closed_form", "autograd")
ACCELERATORS = ("cpu", "gpu")


def _trainer_problems(keys: TrainerKeys) -> Iterator[str]:
    return out_of_range(
        "trainer",
        keys,
        [
            ("max_steps", keys.max_steps >= 1, ">= 1"),
            ("tol", 0 <= keys.tol < float("inf"), "finite and >= 0"),
            ("divergence_bound", keys.divergence_bound > 1, "> 1"),
            ("block_size", keys.block_size >= 1, ">= 1"),
            ("records", keys.records >= 2, ">= 2"),
            ("gradient", keys.gradient in GRADIENTS, f"one of {', '.join(GRADIENTS)}"),
            ("accelerator", keys.accelerator in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}"),
            ("checkpoint_every", keys.checkpoint_every >= 0, ">= 0"),
        ],
    )


def _sweep_problems(keys: SweepKeys, trainer: TrainerKeys) -> Iterator[str]:
    yield from out_of_range("sweep", keys, [("memory_gb", keys.memory_gb > 0, "> 0")])
    if trainer.gradient == "autograd":
        yield "trainer.gradient = 'autograd' trains one network; a sweep needs closed_form"


FLOW_METHODS = ("auto", "explicit", "implicit")


def _flow_problems(keys: FlowKeys) -> Iterator[str]:
    return out_of_range(
        "flow",
        keys,
        [
            ("lam", keys.lam is None or 0 <= keys.lam < float("inf"), "finite and >= 0"),
            ("method", keys.method in FLOW_METHODS, f"one of {', '.join(FLOW_METHODS)}"),
            ("rtol", keys.rtol is None or 2.3e-14 <= keys.rtol < 1, "in [2.3e-14, 1) or null"),
            ("atol", keys.atol is None or 0 < keys.atol < float("inf"), "> 0 or null"),
            ("max_steps", keys.max_steps >= 1, ">= 1"),
        ],
    )


def _path_problems(keys: PathKeys, data: Data | None) -> Iterator[str]:
    yield from out_of_range(
        "flow",
        keys,
        [
            ("lam", keys.lam is not None, "given; 0 is gradient flow"),
            ("time", keys.time is None or keys.time > 0, "> 0, inf or null"),
            ("tol", 0 < keys.tol < float("inf"), "finite and > 0"),
            ("records", keys.records >= 2, ">= 2"),
        ],
    )
    if data is not None and (data.batch_size is not None or data.label_noise):
        yield "data.batch_size and data.label_noise: a flow follows the full loss; leave them out"


def _verify_problems(config: Verify) -> Iterator[str]:
    if config.flow.lam == 0:
        yield "flow.lam = 0 must be > 0: gradient flow is verified beside every momentum flow"
    if config.max_steps is not None and config.max_steps < 1:
        yield f"max_steps = {config.max_steps} must be >= 1 or null"
    if not 0 < config.tol < float("inf"):
        yield f"tol = {config.tol:g} must be finite and > 0"


def _resume_problems(resume: str | None) -> Iterator[str]:
    if resume is not None and not Path(resume).is_file():
        yield f"resume = {resume!r} must be an existing checkpoint"
