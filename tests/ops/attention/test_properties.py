"""Any combination of options is within the error budget.

Hypothesis draws shapes, strides, dtypes, kinds of input, stacks of variants, dropout and scale.
It is derandomized: every run tries the same examples, so that a failure can be bisected.  The tests
assert how many examples ran, because filtered ones do not run.
"""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ...helpers import budget, inputs
from ...helpers.inputs import KINDS, LAYOUTS
from ...helpers.stacks import PARTS, Sizes
from ...helpers.support import FLOATS, Launches

EXAMPLES, INTERPRETED_EXAMPLES, LAUNCHES = 500, 50, 150

HEAD_DIMS = st.one_of(st.integers(1, 40), st.sampled_from([64, 80, 96, 128, 192, 256]))
STACKS = st.lists(st.sampled_from(sorted(PARTS)), max_size=3, unique=True).map("+".join)


def _lengths(most):
    return st.one_of(st.sampled_from([1, 17, 63, 64, 65]), st.integers(1, most))


@st.composite
def problems(draw, most, head_dims, dtypes):
    """A problem's inputs, and the options of `attention`."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    head_dim = draw(head_dims)
    shape = Sizes(
        batch=draw(st.integers(1, 2)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        rows=draw(_lengths(most)),
        keys=draw(_lengths(most)),
        head_dim=head_dim,
        head_dim_v=draw(st.one_of(st.just(head_dim), head_dims)),
    )
    stack = draw(STACKS)
    if "document" in stack and shape.rows > shape.keys:
        shape = shape._replace(rows=shape.keys, keys=shape.rows)
    kinds = sorted(KINDS)
    if "bend" in stack or "sink" in stack:  # s² exceeds the range of fp16 and of exp
        kinds = ["normal", "constant", "tiny"]
    case = inputs.make(
        *(shape, draw(st.sampled_from(dtypes))),
        stack=stack,
        kind=draw(st.sampled_from(kinds)),
        layout=draw(st.sampled_from(sorted(LAYOUTS))),
        do_layout=draw(st.sampled_from(sorted(LAYOUTS))),
        lse=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )
    options = {"dropout_p": draw(st.sampled_from([0.0, 0.0, 0.1, 0.5]))}
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([1.0, 0.1, -0.5]))
    return case, options


def explore(examples, strategy):
    """Run `budget.check` on up to ``examples`` problems; returns how many were run."""
    count = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attention_is_within_its_budget(problem):
        nonlocal count
        count += 1
        case, options = problem
        budget.check(case, **options)

    attention_is_within_its_budget()
    return count


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
def test_on_pytorch_operations(dtype):
    problems_of = problems(most=130, head_dims=HEAD_DIMS, dtypes=[dtype])
    assert explore(EXAMPLES // 4, problems_of) >= EXAMPLES // 4


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", FLOATS)
def test_interpreted(dtype, monkeypatch):
    small = st.one_of(st.integers(1, 20), st.sampled_from([32, 64]))
    launches = Launches().watch(monkeypatch)
    examples = INTERPRETED_EXAMPLES // len(FLOATS)
    assert explore(examples, problems(most=70, head_dims=small, dtypes=[dtype])) >= examples
    assert launches.count >= LAUNCHES // len(FLOATS)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS)
def test_on_a_gpu(dtype, monkeypatch):
    """With few head dims and no scale, because each new constant costs a compilation."""
    launches = Launches().watch(monkeypatch)
    problems_of = problems(most=130, head_dims=st.sampled_from([16, 64]), dtypes=[dtype])
    explore(10, problems_of.map(lambda problem: (_on_gpu(problem[0]), problem[1])))
    assert launches.count >= 30


def _on_gpu(case):
    moved = {name: getattr(case, name).cuda() for name in ("q", "k", "v", "do")}
    tensors = [x if x is None else x.cuda() for x in case.tensors]
    dlse = None if case.dlse is None else case.dlse.cuda()
    return inputs.replace(case, **moved, tensors=tensors, dlse=dlse)
