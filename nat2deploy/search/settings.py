"""Everything that a search may be told, with its defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nat2deploy.errors import UserError
from nat2deploy.plugins import known
from nat2deploy.search.budget import cost_metric
from nat2deploy.search.presets import PRESETS, under_given
from nat2deploy.seed import LARGEST_SEED

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def _metric(text: str) -> str:
    try:
        return cost_metric(text)
    except UserError as error:
        raise ValueError(str(error)) from error


Metric = Annotated[str, AfterValidator(_metric)]
SURROGATES = (
    "gradient-boosting",
    "extra-trees",
    "gaussian-process",
    "process-trees-ridge",
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
)
INITIALISATIONS = ("within-budgets", "stratified", "uniform-depth", "uniform-genes")
UPDATES = ("constant-size", "grow")
SEARCHERS = ("by-objectives", "nsga2", "nsga3", "age-moea-2")
SUBSETS = ("expected-improvement", "greedy", "gap-variance")
DISTRIBUTIONS = ("categorical", "continuous")


def _own(names: tuple[str, ...]) -> Any:
    """What a schema says of names that plug-ins may add to."""
    return Field(json_schema_extra={"examples": [*names]})


SurrogateName = Annotated[str, AfterValidator(known("surrogate", SURROGATES)), _own(SURROGATES)]
InitialisationName = Annotated[
    str, AfterValidator(known("initialisation", INITIALISATIONS)), _own(INITIALISATIONS)
]
UpdateName = Annotated[str, AfterValidator(known("update", UPDATES)), _own(UPDATES)]
SearcherName = Annotated[str, AfterValidator(known("searcher", SEARCHERS)), _own(SEARCHERS)]
SubsetName = Annotated[str, AfterValidator(known("subset", SUBSETS)), _own(SUBSETS)]
DistributionName = Annotated[str, AfterValidator(known("distribution", DISTRIBUTIONS)), _own(DISTRIBUTIONS)]


class SearchSettings(BaseModel):
    """Settings of the NAT2 loop. Defaults suit a small data set on a CPU.

    ``preset`` gives others to all that is not set: see ``presets``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    preset: Literal["ours", "fixed", "nat", "nat2"] = "ours"
    seed: Seed = 0
    objectives: tuple[Metric, ...] = ()
    """Cost objectives, such as ``latency`` or ``latency@pi5``; without any, those that budgets limit, else
    the latency of each table, else MACs."""
    accuracy_only: bool = False
    """Optimise accuracy alone; budgets still limit the costs."""
    archive_size: Annotated[int, Field(ge=4)] = 60
    first_archive: Annotated[int, Field(ge=4)] | None = 40
    """Architectures drawn for the first archive, which then grows to ``archive_size``; that many when not
    given, or when it is fewer."""
    candidates: Positive | None = None
    """Architectures evaluated a round; when not given as many as take the work of the round's adaptation and
    of judging the archive again, or 16 where weights stay as they are."""
    batch_candidates: Positive | None = 8
    """Candidates evaluated at once, after which the surrogate is fitted again; all of a round's when not
    given. Fewer than there are workers leave some idle."""
    rounds: Positive = 4
    initialisation: InitialisationName = "within-budgets"
    repair: Literal["push", "fill"] = "fill"
    """How holes inside a stage are closed: what follows moves up, or is cleared."""
    preprocessing_factor: Positive = 1
    """How many times the archive's size is drawn and evaluated first; the best by survival are kept."""
    update: UpdateName = "constant-size"
    reevaluate: bool = True
    """Judge the whole archive again after each adaptation; else members keep their first evaluation."""
    surrogates: Annotated[tuple[SurrogateName, ...], Field(min_length=1)] = ("process-trees-ridge",)
    """Kinds tried each round; the best by cross-validated Kendall tau is used."""
    surrogate_features: Literal["own", "integer", "one-hot", "choices"] = "own"
    """What surrogates see of the genes; ``own``: each kind what suits it."""
    surrogate_costs: bool = True
    """Surrogates see the logarithms of all costs, too."""
    surrogate_target: Literal["error", "log-error"] = "log-error"
    """What surrogates learn: the error, or its logarithm."""
    surrogate_learns: Literal["archive", "everything"] = "everything"
    """From what: the archive, or everything that was judged with its weights."""
    surrogate_folds: Annotated[int, Field(ge=2)] = 5
    surrogate_ensemble: bool = False
    """The folds' models vote together; else one model fitted on everything predicts."""
    searcher: SearcherName = "by-objectives"
    """``by-objectives``: NSGA-II for two objectives, NSGA-III for more. One is always left to a GA."""
    sampling: Literal["archive", "lhs"] = "archive"
    """The first population: the archive's best and random draws, or an integer Latin hypercube."""
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Rate of two-point crossover."""
    mutation_eta: Annotated[float, Field(gt=0)] = 1.0
    """Distribution index of the polynomial mutation."""
    population: Annotated[int, Field(ge=8)] = 100
    generations: Positive = 20
    subset: SubsetName = "expected-improvement"
    """How candidates are chosen: from all that evolution looked at by the hypervolume that they are expected
    to add, or from its last population far apart in cost, or in even steps of it."""
    exploration: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of ``greedy``: the share of candidates that go to where the surrogate's members disagree."""
    exploitation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of ``greedy``: the share of candidates that go to the lowest predicted errors, as far as
    ``exploration`` leaves them."""
    subset_population: Annotated[int, Field(ge=4)] = 500
    """Of ``gap-variance``'s genetic algorithm."""
    subset_generations: Positive = 200
    top: Positive = 30
    """The best of the archive that the adaptation's distribution is taken from."""
    distribution: DistributionName = "categorical"
    """Of each gene among those: smoothed counts, or the best fitting continuous distribution of scipy."""
    tradeoff_points: Annotated[int, Field(ge=0)] = 4
    """How many networks of the front are marked for their high trade-off."""
    warmup: Literal["uniform", "three-phase"] = "uniform"
    """How: the full network and random ones a step; or each width's full network first, then random
    sub-networks that follow the widest full one."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 3.0
    """Training on a new data set before the first archive; of ``three-phase`` its last phase."""
    warmup_full_epochs: Annotated[float, Field(gt=0)] | None = None
    """Of ``three-phase``: those of each full network; as 100 to 150 of ``warmup_epochs`` when not given."""
    warmup_learning_rate: Annotated[float, Field(gt=0)] = 2e-2
    adapt_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Adaptation a round; 0 leaves the weights as they are."""
    adapt_learning_rate: Annotated[float, Field(gt=0)] = 2.5e-3
    adapt_weight_decay: Annotated[float, Field(ge=0)] = 3e-4
    adapt_clip: Annotated[float, Field(gt=0)] = 5.0
    """Largest norm of a step's gradient; it and the weight decay hold for the warm-up, too."""
    adapt_subnets: Positive = 2
    """Sub-networks that share each step's images."""
    warmup_subnets: Positive | None = None
    """Those of the warm-up, of ``uniform`` beside the full network; as in adaptation when not given."""
    exit_weights: Literal["ascending", "descending"] = "ascending"
    """Which of several exits count most in losses and the teacher's ensemble: the late or the early ones."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of warm-up and adaptation."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    recalibration_images: Annotated[int, Field(ge=2)] = 1000
    """Training images that an evaluation takes BN's statistics from."""
    validation_images: Positive | None = None
    """Validation images an evaluation looks at; all when not given."""
    passed_exits: bool = True
    """Take the accuracies at the early exits that a judged network passes, too: they are those of
    sub-networks that end there, which then need no evaluation. In 32-bit floats; in others each is judged."""
    halving_images: Positive | None = None
    """Judge candidates, and the archive when it is judged again, on so many of those images first, then on
    twice as many, and so on; those that are dominated for sure are dropped. Without it all see all images."""
    halving_risk: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The largest probability that a network is dropped which nothing judged before would dominate."""

    @property
    def first_size(self) -> int:
        """How many architectures the first archive holds."""
        return min(self.first_archive or self.archive_size, self.archive_size)

    @property
    def judges_again(self) -> bool:
        """Whether the archive is judged again each round; with weights that stay it would be as before."""
        return self.reevaluate and self.adapt_epochs > 0

    @model_validator(mode="before")
    @classmethod
    def _under_what_is_given(cls, given: Any) -> Any:
        """Put the preset's values under those that are given."""
        return under_given(given, PRESETS)

    @model_validator(mode="after")
    def _agree(self) -> SearchSettings:
        if self.accuracy_only and self.objectives:
            raise ValueError("accuracy_only leaves no place for objectives; give one of them")
        if self.exploration > 0 and not (self.surrogate_ensemble and self.subset == "greedy"):
            raise ValueError(
                "exploration needs subset 'greedy' and a surrogate_ensemble whose folds disagree"
            )
        if self.exploitation > 0 and self.subset != "greedy":
            raise ValueError("exploitation needs subset 'greedy'")
        self._refuse_idle()
        return self

    def _refuse_idle(self) -> None:
        """Refuse what was set, and not by the preset, and takes no effect beside the rest."""
        unset = {name: field.default for name, field in type(self).model_fields.items()}
        unset.update(PRESETS[self.preset])
        # Sizes of a preset's own algorithm may stay where another subset takes its place.
        gaps = "gap-variance" in (self.subset, unset["subset"])
        for name, works, needed in (
            ("warmup_full_epochs", self.warmup == "three-phase", "warmup 'three-phase'"),
            ("halving_risk", self.halving_images is not None, "halving_images"),
            ("subset_population", gaps, "subset 'gap-variance'"),
            ("subset_generations", gaps, "subset 'gap-variance'"),
        ):
            if not works and getattr(self, name) != unset[name]:
                raise ValueError(f"{name} needs {needed}; set that, too, or leave {name} out")
