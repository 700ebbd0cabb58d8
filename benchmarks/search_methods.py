"""The searches that ``benchmarks/search.py`` compares: ours, the authors', and peers, on one task.

All see exact costs before anything is judged, as the tables allow, so none spends an evaluation on an
architecture over a budget unless its own rules want one (the first archives hold the space's two ends). An
architecture that was judged is known: only distinct ones count.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.sets import ImageData, Normalisation, Split
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.evolve import evolve
from nat2deploy.search.judges.base import Job, Judge, Judged
from nat2deploy.search.nat2 import Nat2Search
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.surrogate import best_surrogate
from nat2deploy.search.survival import reference_directions, survivors
from nat2deploy.search.tabular import TabularBenchmark
from nat2deploy.search.update import objective_matrix
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes
from nat2deploy.space.sampling import uniform_depth_genes
from nat2deploy.training.evaluation import Accuracy


class Spent(Exception):
    """All evaluations are used up."""


class Task:
    """A benchmark under budgets, with a number of evaluations; ``trace`` holds what they found, in order.

    What a network passes (``SearchSpace.passed``) is found with it, if who asks wants it: ``passes`` says at
    which evaluation, counted from 1, each of the trace was found.
    """

    def __init__(self, benchmark: TabularBenchmark, objectives: Objectives, evaluations: int) -> None:
        self.benchmark = benchmark
        self.objectives = objectives
        self.encoding = objectives.encoding
        self.evaluations = evaluations
        self.asked = self.judged = 0
        self.passes: list[int] = []
        self._known: dict[bytes, Evaluation] = {}

    @property
    def trace(self) -> list[Evaluation]:
        """What was found, in order."""
        return list(self._known.values())

    def knows(self, genes: Genes) -> bool:
        """Whether one vector's accuracy was found."""
        return genes.tobytes() in self._known

    def judge(self, genes: Genes) -> Evaluation:
        """Judge one canonical vector [G].

        Raises:
            Spent: all evaluations are used up, or nothing new is asked for any more.
        """
        self.asked += 1
        key = genes.tobytes()
        if key not in self._known:
            if self.judged == self.evaluations:
                raise Spent
            self.judged += 1
            self._find(key, self.encoding.decode(genes))
        elif self.asked > 100 * self.evaluations:
            raise Spent
        return self._known[key]

    def passed(self, architecture: Architecture) -> Evaluation:
        """What the last judged network passed, which takes no evaluation."""
        key = self.encoding.encode(architecture).tobytes()
        if key not in self._known:
            self._find(key, architecture)
        return self._known[key]

    def _find(self, key: bytes, architecture: Architecture) -> None:
        top1 = self.benchmark.query(architecture).validation_top1
        values = self.objectives.values(architecture, top1)
        self._known[key] = Evaluation(architecture, 0, "archive", 0.0, values)
        self.passes.append(self.judged)

    def inside(self, genes: Genes) -> Any:
        """Which of [N, G] keep the budgets on costs, bool [N]."""
        return (self.objectives.cost_violations(self.objectives.costs(genes)) <= 0).all(axis=1)

    def draw(self, rng: np.random.Generator, count: int) -> list[Genes]:
        """Random distinct vectors within the budgets that are not judged yet, NAT2's draw."""
        found: dict[bytes, Genes] = {}
        for _ in range(200):
            pool = uniform_depth_genes(self.encoding, rng, 4 * count)
            for row in pool[self.inside(pool)]:
                if not self.knows(row):
                    found.setdefault(row.tobytes(), row)
            if len(found) >= count:
                break
        return list(found.values())[:count]


def random_search(task: Task, seed: int) -> None:
    """Random architectures within the budgets."""
    rng = np.random.default_rng([seed, 1])
    while drawn := task.draw(rng, 64):
        for genes in drawn:
            task.judge(genes)


def regularised_evolution(task: Task, seed: int, population: int = 50, sample: int = 10) -> None:
    """Real et al., "Regularized Evolution" (2019): tournaments, one mutation, the oldest dies.

    With several objectives each tournament goes by a Chebyshev scalarisation with weights of its own.
    """
    rng = np.random.default_rng([seed, 2])
    encoding = task.encoding
    alive: deque[Evaluation] = deque(task.judge(genes) for genes in task.draw(rng, population))
    while True:
        group = [alive[i] for i in rng.choice(len(alive), min(sample, len(alive)), replace=False)]
        values = objective_matrix(list(alive), task.objectives)
        low, span = values.min(axis=0), np.ptp(values, axis=0)
        scaled = (objective_matrix(group, task.objectives) - low) / np.where(span > 0, span, 1.0)
        weights = rng.dirichlet(np.ones(scaled.shape[1]))
        parent = encoding.encode(group[int((weights * scaled).max(axis=1).argmin())].architecture)
        child = _mutant(task, parent, rng)
        alive.append(task.judge(child))
        alive.popleft()


def _mutant(task: Task, parent: Genes, rng: np.random.Generator) -> Genes:
    """One gene of the parent drawn anew, until that is another architecture within the budgets."""
    encoding = task.encoding
    for _ in range(1000):
        child = parent.copy()
        gene = int(rng.integers(len(encoding)))
        child[gene] = rng.integers(encoding.lower[gene], encoding.upper[gene] + 1)
        if encoding.has_exit_gene and gene == 2:  # stages that begin to run need layers
            fresh = uniform_depth_genes(encoding, rng, 1)[0]
            child = np.where(child == 0, np.where(encoding.running(child), fresh, 0), child)
        child = encoding.repair(child)
        if not task.knows(child) and task.inside(child[None])[0]:
            return child
    return task.draw(rng, 1)[0]


def nsga2(task: Task, seed: int, population: int = 50) -> None:
    """Deb et al. (2002) on judged accuracy, without a surrogate: pymoo's, with NAT2's operators."""

    class Judged:
        """Stands where a surrogate would: the truth, for what is within the budgets."""

        def predict(self, genes: Genes) -> Any:
            inside = task.inside(genes)
            return np.array([task.judge(g).error if ok else 1.0 for g, ok in zip(genes, inside, strict=True)])

    start = np.stack(task.draw(np.random.default_rng([seed, 3]), population))
    evolve(
        task.objectives,
        Judged(),  # type: ignore[arg-type]
        reference_directions(len(task.objectives), population),
        start=start,
        population=population,
        generations=100_000,
        seed=seed,
        searcher="nsga2",
    )


def linas(task: Task, seed: int, population: int = 50, generations: int = 200) -> None:
    """DyNAS-T's LINAS (Cummings et al., 2022), reimplemented from its description.

    Each iteration fits a predictor on all that was judged (ridge or support vectors, the better one),
    lets NSGA-II run on it for many generations, and judges the best of its last population.
    """
    rng = np.random.default_rng([seed, 4])
    objectives, encoding = task.objectives, task.encoding
    for genes in task.draw(rng, population):
        task.judge(genes)
    directions = reference_directions(len(objectives), population)
    while True:
        judged = task.trace
        before = len(judged)
        genes = encoding.encode_all([e.architecture for e in judged])
        predictor = best_surrogate(
            ("ridge", "svr"),
            genes,
            np.array([e.error for e in judged]),
            encoding,
            seed=seed,
            folds=5,
            features="one-hot",
            ensemble=False,
        )
        evolved = evolve(
            objectives,
            predictor,
            directions,
            start=np.stack(task.draw(rng, population)),
            population=2 * population,
            generations=generations,
            seed=seed * 101 + before,
            searcher="nsga2",
        ).last
        fresh = np.array([row for row in evolved if not task.knows(row)], dtype=np.int64)
        fresh = fresh.reshape(-1, len(encoding))
        fresh = fresh[task.inside(fresh)]
        costs = objectives.costs(fresh) if len(fresh) else {}
        if len(fresh):
            matrix = objectives.matrix(predictor.predict(fresh), costs)
            for index in survivors(matrix, np.zeros(len(fresh)), population, seed):
                task.judge(fresh[index])
        if len(task.trace) == before:
            task.judge(task.draw(rng, 1)[0])


def optuna(sampler: str) -> Callable[[Task, int], None]:
    """Optuna's samplers, with the budgets as its constraints."""

    def search(task: Task, seed: int) -> None:
        import warnings

        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        for kind in (optuna.exceptions.ExperimentalWarning, FutureWarning):  # constraints, old and new
            warnings.simplefilter("ignore", kind)
        encoding, objectives = task.encoding, task.objectives
        space = encoding.space

        def constraints(trial: Any) -> Any:
            return trial.user_attrs["over"]

        samplers = {
            "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, constraints_func=constraints),
            "tpe": lambda: optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constraints_func=constraints
            ),
        }

        def objective(trial: Any) -> list[float]:
            genes = np.zeros(len(encoding), dtype=np.int64)
            for gene in range(encoding.first_layer):
                genes[gene] = trial.suggest_int(f"head{gene}", 0, int(encoding.upper[gene]))
            layers = encoding.layers(genes)
            for stage in range(encoding.stages):
                depth = trial.suggest_int(f"depth{stage}", space.depths[0], space.max_depth)
                for layer in range(space.max_depth):
                    code = trial.suggest_categorical(f"layer{stage}.{layer}", range(1, encoding.states))
                    layers[stage, layer] = code if layer < depth else 0
            genes = encoding.repair(genes)
            costs = objectives.costs(genes[None])
            over = objectives.cost_violations(costs)[0]
            trial.set_user_attr("over", [float(value) for value in over])
            error = task.judge(genes).error if (over <= 0).all() else 1.0
            return [float(v) for v in objectives.matrix(np.array([error]), costs)[0]]

        study = optuna.create_study(directions=["minimize"] * len(objectives), sampler=samplers[sampler]())
        study.optimize(objective, n_trials=20 * task.evaluations)

    return search


def nat2deploy(**settings: Any) -> Callable[[Task, int], None]:
    """Nat2Search itself, with weights that stay as they are and a judge that asks the benchmark."""

    def search(task: Task, seed: int) -> None:
        given = SearchSettings(**{"rounds": 10_000, "reevaluate": False, **settings, "seed": seed})
        with tempfile.TemporaryDirectory(dir=_memory()) as folder:
            loop = Nat2Search(
                task.objectives,
                FixedWeights(),  # type: ignore[arg-type]
                _no_images(),
                given,
                Path(folder),
                judge=TaskJudge(task),
            )
            loop.run()

    return search


class FixedWeights:
    """The weights of a search that adapts nothing: each round is a version, all of them the same."""

    supernet = None
    version = 0

    def prepare(self, report: Any) -> None:
        pass

    def adapt(self, sampler: Any, report: Any) -> None:
        self.version += 1

    def clear(self) -> None:
        pass


class TaskJudge(Judge):
    """Asks the benchmark."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def judge(self, weights: Any, jobs: Sequence[Job]) -> Generator[Judged]:
        for job in jobs:
            evaluation = self.task.judge(self.task.encoding.encode(job.architecture))
            passed = [self.task.passed(one) for one in job.passed]
            yield Judged(_accuracy(evaluation), tuple(map(_accuracy, passed)))


def _accuracy(evaluation: Evaluation) -> Accuracy:
    return Accuracy(evaluation.values["top1"], 0.0, 1)


def _no_images() -> ImageData:
    split = Split(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    grey = Normalisation((0.5,) * 3, (0.5,) * 3)
    return ImageData("none", ("none",), split, split, split, grey, Augmentation(0, False))


def _memory() -> Path | None:
    """Where files need no disk: a search syncs each line of its archive."""
    place = Path("/dev/shm")
    return place if place.is_dir() else None
