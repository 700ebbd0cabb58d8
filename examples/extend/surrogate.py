"""A surrogate: partial least squares, linear in a few directions of the genes.

    NAT2DEPLOY_PLUGINS=examples/extend/surrogate.py nat2deploy search --settings settings.toml ...

where settings.toml says `surrogates = ["partial-least-squares", "extra-trees"]`: each round takes the one
with the best cross-validated Kendall tau. A package names the object instead, in its pyproject.toml:

    [project.entry-points."nat2deploy.surrogates"]
    partial-least-squares = "my_package.surrogate:KIND"
"""

from __future__ import annotations

from sklearn.cross_decomposition import PLSRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nat2deploy.plugins import register
from nat2deploy.search.regressors import SurrogateKind


def make(seed: int) -> Pipeline:
    """Return an unfitted scikit-learn regressor of features [N, F]; this one needs no seed."""
    return make_pipeline(StandardScaler(), PLSRegression(n_components=2, scale=False))


KIND = SurrogateKind(make, features="one-hot")

register("surrogate", "partial-least-squares", KIND)
