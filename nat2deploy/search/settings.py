"""Everything that a search may be told, with its defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Metric = Literal["latency_ms", "latency_p95_ms", "latency_p99_ms", "macs", "params", "size_mb"]
SurrogateName = Literal[
    "gradient-boosting",
    "extra-trees",
    "gaussian-process",
    "bayesian-ridge",
    "rbf",
    "rbf-ensemble",
    "mlp",
    "cart-forest",
    "decision-tree",
    "svr",
    "ridge",
    "k-nn",
    "lightgbm",
    "catboost",
]


class SearchSettings(BaseModel):
    """Settings of the NAT2 loop. Defaults suit a small data set on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = 0
    objectives: tuple[Metric, ...] = ()
    """Cost objectives; without any, those that budgets limit, else latency (with a table) or MACs."""
    archive_size: Annotated[int, Field(ge=4)] = 100
    candidates: Positive = 16
    """Architectures evaluated a round."""
    rounds: Positive = 8
    initialisation: Literal["uniform-genes", "uniform-depth", "within-budgets"] = "within-budgets"
    update: Literal["grow", "constant-size"] = "constant-size"
    surrogates: Annotated[tuple[SurrogateName, ...], Field(min_length=1)] = (
        "gaussian-process",
        "extra-trees",
        "gradient-boosting",
    )
    """Kinds tried each round; the best by cross-validated Kendall tau is used."""
    surrogate_features: Literal["own", "integer", "one-hot"] = "own"
    """What surrogates see of the genes; ``own``: each kind what suits it."""
    surrogate_folds: Annotated[int, Field(ge=2)] = 10
    surrogate_ensemble: bool = True
    """The folds' models vote together; else one model fitted on everything predicts."""
    population: Annotated[int, Field(ge=8)] = 100
    generations: Positive = 20
    top: Positive = 50
    """The best of the archive that the adaptation's distribution is taken from."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 3.0
    """Training on a new data set before the first archive."""
    warmup_learning_rate: Annotated[float, Field(gt=0)] = 2e-2
    adapt_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Adaptation a round; 0 leaves the weights as they are."""
    adapt_learning_rate: Annotated[float, Field(gt=0)] = 2.5e-3
    adapt_subnets: Positive = 2
    """Sub-networks that share each step's images."""
    batch_size: Positive = 128
    recalibration_images: Positive = 2000
    validation_images: Positive | None = None
    """Validation images an evaluation looks at; all when not given."""
