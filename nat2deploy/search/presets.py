"""Settings by name: the authors' own, and ours.

``nat`` is Lu et al., "Neural Architecture Transfer" (2021), ``nat2`` Sarti et al., "NAT2" (2023), each with
the numbers of the first author's released code; ``ours`` are the defaults. ``fixed`` is ours for weights
that stay as they are. Any setting that is given goes before the preset's.
The authors search super-networks of widths 1.0 and 1.2 side by side: give both. What their code does wrong
is not repeated:

- It decodes vectors that evolution made without repair, so that a hole in a stage draws a random layer; here
  every vector is repaired first, as ``repair`` says.
- Its fit of a gene's distribution always ends with one fixed family; here the least squared error wins. Its
  parallel version can scramble the order of genes; here each gene keeps its own.
- Without a validation set, its early stopping looks at the test set; here validation images are always held
  out, and the test split is looked at once, at the end of fine-tuning.
- The second phase of its fine-tuning keeps the first one's cosine length; here a training's rate always falls
  over its own length.

Ours in all presets: the first archive holds the cheapest network by each budgeted cost beside the smallest
and the largest; gaps along a cost are measured in units of its range when candidates are chosen, so that
no cost outweighs another; the gradients of a step's sub-networks are averaged and clipped once, where theirs
add up and are clipped after each; biases and BN do not decay; the rate falls anew within each round's
adaptation, where theirs falls once over the whole search. Latencies come from tables, and are not timed
inside the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AUTHORS: dict[str, Any] = {
    "rounds": 30,
    "reevaluate": True,
    "first_archive": None,
    "passed_exits": False,
    "batch_candidates": None,
    # Surrogate: 10 folds of LightGBM vote.
    "surrogates": ("lightgbm",),
    "surrogate_folds": 10,
    "surrogate_ensemble": True,
    "surrogate_costs": False,
    "surrogate_target": "error",
    "surrogate_learns": "archive",
    # Inner search: GA, NSGA-II or NSGA-III on Riesz directions, by the number of objectives.
    "searcher": "by-objectives",
    "population": 100,
    "generations": 20,
    "sampling": "lhs",
    "crossover": 0.9,
    "mutation_eta": 1.0,
    # Candidates from the last population.
    "subset": "gap-variance",
    "subset_population": 500,
    "subset_generations": 200,
    # Adaptation.
    "top": 150,
    "distribution": "continuous",
    "adapt_epochs": 5.0,
    "adapt_learning_rate": 2.5e-3,
    "adapt_weight_decay": 3e-4,
    "adapt_clip": 5.0,
    "adapt_subnets": 4,
    "batch_size": 256,
    # On new data, before the first archive: 100 epochs of each full network, then of the super-networks.
    "warmup": "three-phase",
    "warmup_epochs": 150.0,
    "warmup_learning_rate": 7.5e-3,
    "warmup_subnets": 4,
    # Losses: 0.34, 0.27, 0.20, 0.13, 0.06 for five exits.
    "exit_weights": "descending",
    "label_smoothing": 0.0,
    "recalibration_images": 960,
    "tradeoff_points": 4,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "fixed": {
        "adapt_epochs": 0.0,
        "reevaluate": False,
        "archive_size": 100,
        "candidates": 16,
        "rounds": 8,
    },
    "nat": {
        **_AUTHORS,
        "archive_size": 100,
        "initialisation": "uniform-genes",
        "repair": "push",
        "preprocessing_factor": 1,
        "candidates": 8,
        "update": "grow",
        "surrogate_features": "one-hot",
    },
    "nat2": {
        **_AUTHORS,
        "archive_size": 300,
        "initialisation": "uniform-depth",
        "repair": "fill",
        "preprocessing_factor": 10,
        "candidates": 25,
        "update": "constant-size",
        "surrogate_features": "integer",
    },
}
"""Values of ``SearchSettings`` by preset; what one does not name keeps its default."""


def under_given(given: Any, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """Put the values of the preset that ``given`` names, ``ours`` if none, under those that are given."""
    name = given.get("preset", "ours") if isinstance(given, dict) else None
    return {**presets[name], **given} if isinstance(name, str) and name in presets else given
