"""Hypothesis strategies of search spaces' things."""

from hypothesis import strategies as st

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import SearchSpace


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    """Any architecture of the space."""
    layer = st.builds(
        Layer,
        st.sampled_from(space.kernels),
        st.sampled_from(space.expansions),
        st.sampled_from(space.branch_states),
    )
    stage = st.lists(layer, min_size=space.depths[0], max_size=space.depths[-1]).map(tuple)

    def with_exits(exits: tuple[int, ...]) -> st.SearchStrategy[Architecture]:
        return st.builds(
            Architecture,
            st.sampled_from(space.resolutions),
            st.sampled_from(space.widths),
            st.tuples(*[stage] * exits[-1]),
            st.just(exits),
        )

    return st.sampled_from(space.exit_states).flatmap(with_exits)


def json_values() -> st.SearchStrategy[object]:
    """Anything that JSON can hold, and the numbers that Python's reader takes beside."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
    )
