from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import architectures

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import load_space

NAMES = ("nano", "nano-se-p", "nano-ee-d", "nano-me-dp", "ofa-mbv3", "ofav2-mbv3", "ofav2-mbv3-me-d")
ENCODINGS = {name: IntegerEncoding(load_space(name)) for name in NAMES}
PRECISE = IntegerEncoding(load_space("nano-ee-d"), ("fp32", "bf16", "int8"))
ENCODINGS |= {"precisions": PRECISE, "one-exit": IntegerEncoding(load_space("nano"), ("fp32", "int8"))}
OFA = ENCODINGS["ofa-mbv3"]
any_encoding = st.sampled_from(sorted(ENCODINGS)).map(ENCODINGS.__getitem__)
how_to_repair = st.sampled_from(["push", "fill"])


@st.composite
def encoded(draw):
    encoding = draw(any_encoding)
    precision = draw(st.sampled_from(encoding.precisions or (None,)))
    return encoding, replace(draw(architectures(encoding.space)), precision=precision)


@st.composite
def vectors(draw):
    """An encoding with a vector whose genes are within bounds, and may have holes."""
    encoding = draw(any_encoding)
    genes = [
        draw(st.integers(int(low), int(high)))
        for low, high in zip(encoding.lower, encoding.upper, strict=True)
    ]
    return encoding, np.array(genes, dtype=np.int64)


def stage(*codes: int) -> np.ndarray:
    """A Once-For-All vector whose first stage has these codes."""
    return np.array([0, 0, *codes, *[1, 1, 0, 0] * 4], dtype=np.int64)


def test_lengths_and_bounds_are_those_of_the_paper():
    assert len(OFA) == 2 + 20
    assert OFA.lower.tolist() == [0, 0, *[1, 1, 0, 0] * 5]
    assert OFA.upper.tolist() == [32, 1, *[9] * 20]


def test_nat_m1_decodes_as_published():
    digits = [int(digit) for digit in "11001440551052208877"]
    resolution = OFA.space.resolutions.index(224)
    architecture = OFA.decode(np.array([resolution, 0, *digits]))
    codes = {1: Layer(3, 3.0), 2: Layer(5, 3.0), 4: Layer(3, 4.0), 5: Layer(5, 4.0), 7: Layer(3, 6.0)}
    codes[8] = Layer(5, 6.0)
    wanted = ((1, 1), (1, 4, 4), (5, 5, 1), (5, 2, 2), (8, 8, 7, 7))
    assert architecture == Architecture(224, 1.0, tuple(tuple(codes[c] for c in s) for s in wanted))
    assert OFA.encode(architecture).tolist() == [resolution, 0, *digits]


@given(encoded())
def test_encode_then_decode_gives_the_architecture_back(pair):
    encoding, architecture = pair
    genes = encoding.encode(architecture)
    assert genes.dtype == np.int64
    assert (encoding.lower <= genes).all()
    assert (genes <= encoding.upper).all()
    for how in ("push", "fill"):
        assert encoding.decode(genes, how) == architecture
        assert encoding.repair(genes, how).tolist() == genes.tolist()


@given(vectors(), how_to_repair)
def test_two_encodings_of_one_network_are_equal(pair, how):
    encoding, genes = pair
    repaired = encoding.repair(genes, how)
    architecture = encoding.decode(genes, how)
    assert encoding.encode(architecture).tolist() == repaired.tolist()
    assert encoding.decode(repaired, "push") == encoding.decode(repaired, "fill") == architecture
    other = encoding.decode(encoding.lower)
    assert encoding.decode_all(np.stack([genes, encoding.lower, repaired]), how) == [
        architecture,
        other,
        architecture,
    ]
    assert encoding.space.contains(architecture)


@given(vectors(), how_to_repair)
def test_repair_never_leaves_a_hole(pair, how):
    encoding, genes = pair
    present = encoding.layers(encoding.repair(genes, how)) > 0
    assert (present[:, :-1] >= present[:, 1:]).all()


@given(vectors())
def test_push_keeps_every_present_layer_and_fill_only_those_before_the_first_zero(pair):
    encoding, genes = pair
    width = encoding.space.max_depth
    pushed, filled = (encoding.layers(encoding.repair(genes, how)) for how in ("push", "fill"))
    last = encoding.space.exit_states[int(encoding.exit_index(genes))][-1]
    within = np.maximum(genes, encoding.required)  # a stage that runs has its required layers
    for number, (before, push, fill) in enumerate(
        zip(encoding.layers(within).tolist(), pushed, filled, strict=True), start=1
    ):
        if number > last:
            assert not push.any() and not fill.any()
            continue
        layers = [encoding.layer(code) for code in before if code]
        assert [encoding.layer(code) for code in push.tolist() if code] == layers
        first = [*before, 0].index(0)
        assert [encoding.layer(code) for code in fill.tolist() if code] == layers[:first]
        assert not fill[first:].any() and len(fill) == width


@pytest.mark.parametrize(
    ("codes", "pushed", "filled"),
    [
        ([1, 4, 0, 8], [1, 4, 8, 0], [1, 4, 0, 0]),
        ([1, 4, 8, 0], [1, 4, 8, 0], [1, 4, 8, 0]),
        ([9, 9, 0, 0], [9, 9, 0, 0], [9, 9, 0, 0]),
        ([2, 3, 4, 5], [2, 3, 4, 5], [2, 3, 4, 5]),
    ],
)
def test_a_hole_is_pushed_out_or_ends_the_stage(codes, pushed, filled):
    assert OFA.repair(stage(*codes), "push")[2:6].tolist() == pushed
    assert OFA.repair(stage(*codes), "fill")[2:6].tolist() == filled
    assert OFA.decode(stage(*codes)) == OFA.decode(stage(*filled))


def test_genes_outside_the_bounds_are_brought_inside():
    wild = stage(0, -5, 99, 3)
    wild[:2] = [-1, 7]
    assert OFA.repair(wild, "fill")[:6].tolist() == [0, 1, 1, 1, 9, 3]


def test_repair_of_a_matrix_is_the_repair_of_its_rows_and_leaves_the_input_alone():
    rng = np.random.default_rng(0)
    genes = rng.integers(OFA.lower, OFA.upper + 1, size=(50, len(OFA)))
    before = genes.copy()
    for how in ("push", "fill"):
        assert OFA.repair(genes, how).tolist() == [OFA.repair(row, how).tolist() for row in genes]
    assert (genes == before).all()


def test_encode_all_stacks_rows_also_when_there_are_none():
    both = [OFA.space.smallest(), OFA.space.largest()]
    assert OFA.encode_all(both).tolist() == [OFA.encode(a).tolist() for a in both]
    assert OFA.encode_all([]).shape == (0, len(OFA))


def test_one_hot_has_a_column_for_each_value_of_each_gene():
    genes = OFA.encode_all([OFA.space.smallest(), OFA.space.largest()])
    hot = OFA.one_hot(genes)
    # 33 resolutions, 2 widths, and in each stage two layers of 9 states and two of 10
    assert hot.shape == (2, 33 + 2 + 5 * (9 + 9 + 10 + 10))
    assert hot.dtype == np.float64
    assert np.flatnonzero(hot[0])[:6].tolist() == [0, 33, 35, 44, 53, 63]
    assert np.flatnonzero(hot[1])[:6].tolist() == [32, 34, 43, 52, 62, 72]


@given(vectors())
def test_one_hot_has_one_1_a_gene_and_can_be_read_back(pair):
    encoding, genes = pair
    hot = encoding.one_hot(genes)
    ends = np.cumsum(encoding.upper - encoding.lower + 1)
    parts = np.split(hot, ends[:-1])
    assert [part.sum() for part in parts] == [1.0] * len(encoding)
    read = [low + part.argmax() for low, part in zip(encoding.lower, parts, strict=True)]
    assert read == genes.tolist()


def test_ofav2_has_a_gene_for_the_exit_and_63_states_a_layer():
    encoding = ENCODINGS["ofav2-mbv3"]
    assert len(encoding) == 3 + 20
    assert encoding.upper.tolist() == [32, 1, 4, *[63] * 20]
    assert encoding.lower.tolist() == [0, 0, 0, *[1, 1, 0, 0], *[0] * 16]  # later stages need not run
    assert len(ENCODINGS["ofav2-mbv3-me-d"].space.exit_states) == 31


def test_branches_are_coded_as_the_paper_codes_them():
    encoding = ENCODINGS["ofav2-mbv3"]
    assert encoding.code(Layer(3, 3.0)) == 1
    assert encoding.code(Layer(7, 6.0)) == 9
    assert encoding.code(Layer(3, 3.0, 2)) == encoding.code(Layer(0, 0.0, 2)) == 10
    assert encoding.code(Layer(5, 4.0, 7)) == 1 + 1 + 3 * 1 + 9 * 6
    assert encoding.code(Layer(7, 6.0, 7)) == 63


def test_kernels_and_expansions_of_absent_residuals_make_no_difference():
    encoding = ENCODINGS["ofav2-mbv3"]
    genes = encoding.encode(encoding.space.largest())
    other = genes.copy()
    genes[4], other[4] = 1 + 9 * 3 + 2, 1 + 9 * 3 + 7  # the transform branch alone
    assert encoding.decode(genes) == encoding.decode(other)
    assert encoding.repair(genes).tolist() == encoding.repair(other).tolist()


def test_running_marks_what_the_last_exit_leaves():
    encoding = ENCODINGS["nano-ee-d"]
    genes = encoding.repair(np.array([0, 0, 1, *[1] * 12]))
    assert genes.tolist() == [0, 0, 1, *[1] * 6, *[0] * 6]
    assert encoding.running(genes).tolist() == [True] * 9 + [False] * 6
    architecture = encoding.decode(genes)
    assert (architecture.depths, architecture.exits) == ((3, 3), (2,))


def test_a_precision_is_a_gene_where_there_are_several():
    space = PRECISE.space
    plain = IntegerEncoding(space)
    assert len(IntegerEncoding(space, ("int8",))) == len(plain) == len(PRECISE) - 1
    assert PRECISE.upper[PRECISE.precision_gene] == 2
    small = space.smallest()
    genes = PRECISE.encode(replace(small, precision="int8"))
    assert genes[PRECISE.precision_gene] == 2
    assert np.delete(genes, PRECISE.precision_gene).tolist() == plain.encode(small).tolist()
    assert PRECISE.one_hot(genes).sum() == len(PRECISE)
    with pytest.raises(ValueError):
        PRECISE.encode(small)
    with pytest.raises(ValueError):
        PRECISE.encode(replace(small, precision="fp16"))
    with pytest.raises(ValueError, match="no precision to choose"):
        plain.encode(replace(small, precision="int8"))
