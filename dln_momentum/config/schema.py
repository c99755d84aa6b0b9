"""Every key of every config: its name, its type and its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Data:
    """Keys that every data set shares."""

    kind: str = MISSING
    batch_size: int | None = None
    sampling: str = "with_replacement"
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
    speed: float = 0.0


@dataclass
class Uniform(Model):
    """u_0 = sqrt(2) alpha, v_0 = 0."""

    alpha: float = 0.1


@dataclass
class Biased(Model):
    """Layers phi c and c/phi, c = scale, of theta = u v or of theta = a^2 - b^2."""

    scale: float = 0.1
    phi: float = 0.03
    parametrisation: str = "product"


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
    path_sums: str = "telescoped"
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
