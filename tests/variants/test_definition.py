"""What `define_variant` refuses at once, with the names of the variant and of the hook.

Seen failing on: no check that a hook is or is not jitted, parameters not counted, `additive`
without a score, hooks beside a sink_logit let through, a name that no operator can carry.
"""

import pytest
import triton

import fused_attention as fa
from fused_attention import _triton
from fused_attention.variants import base, hooks


def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return kv_idx <= q_idx


def _score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s


def _score_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


def _arg_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


def _bounds(b, h, first, last, seqlen_q, seqlen_k, args):
    return 0, seqlen_k, 0, 0


def _torch_bounds(b, first, last, seqlen_q, seqlen_k, args):
    return 0, seqlen_k, 0, 0


def _nothing(args):
    return None


MASK = {"mask": triton.jit(_mask), "torch_mask": _mask}
SCORE = {"score": triton.jit(_score), "torch_score": _score}
ADDITIVE = {**SCORE, "additive": True}
SCORE_GRAD = {"score_grad": triton.jit(_score_grad), "torch_score_grad": _score_grad}
ARG_GRAD = {"arg_grad": triton.jit(_arg_grad), "torch_arg_grad": _arg_grad}
BOUNDS = {
    "key_bounds": triton.jit(_bounds),
    "query_bounds": triton.jit(_bounds),
    "torch_key_bounds": _torch_bounds,
}
COMPLETE = (MASK, {**SCORE, **SCORE_GRAD}, {**ADDITIVE, **ARG_GRAD}, {**MASK, **BOUNDS})


def without(given, *names):
    return {hook: value for hook, value in given.items() if hook not in names}


@pytest.mark.parametrize(
    "given, message",
    [
        (without(MASK, "torch_mask"), "torch_mask is missing"),
        (without(MASK, "mask"), "mask is missing"),
        (without(ADDITIVE, "torch_score"), "torch_score is missing"),
        ({}, "expected a mask or a score"),
        ({"check": lambda args, shape: None}, "expected a mask or a score"),
        (SCORE, "either additive=True or a score_grad"),
        ({**SCORE, "additive": False}, "either additive=True or a score_grad"),
        ({**ADDITIVE, **SCORE_GRAD}, "either additive=True or a score_grad"),
        ({**SCORE, **without(SCORE_GRAD, "torch_score_grad")}, "torch_score_grad is missing"),
        ({**ADDITIVE, **without(ARG_GRAD, "torch_arg_grad")}, "torch_arg_grad is missing"),
        ({**MASK, **without(BOUNDS, "torch_key_bounds")}, "torch_key_bounds is missing"),
        ({**MASK, **without(BOUNDS, "key_bounds")}, "key_bounds is missing"),
        ({**MASK, **without(BOUNDS, "query_bounds")}, "must be given together"),
        ({**MASK, "query_bounds": BOUNDS["query_bounds"]}, "must be given together"),
        ({**MASK, **SCORE_GRAD}, "score_grad needs score beside it"),
        ({**MASK, **ARG_GRAD}, "arg_grad needs score beside it"),
        ({**MASK, "additive": True}, "additive needs score beside it"),
        ({**ADDITIVE, "torch_arg_index": _mask}, "torch_arg_index needs arg_grad beside it"),
        ({**ADDITIVE, **BOUNDS}, "key_bounds needs mask beside it"),
        ({**MASK, "batched_bounds": True}, "batched_bounds needs key_bounds beside it"),
        ({**MASK, "sink_logit": _nothing}, "sink_logit beside mask, torch_mask"),
        ({"sink_logit": _nothing, "additive": True}, "sink_logit beside additive"),
    ],
)
def test_hooks_that_do_not_go_together(given, message):
    before = dict(base._TYPES)
    with pytest.raises(ValueError, match=f"variant 'test_incomplete'.*{message}"):
        fa.define_variant("test_incomplete", **given)
    assert before == base._TYPES


@pytest.mark.parametrize(
    "given, message",
    [
        ({**MASK, "mask": _mask}, "mask: expected a @triton.jit function, got the .* _mask"),
        ({**MASK, "mask": 3}, "mask: expected a @triton.jit function, got int"),
        ({**MASK, "torch_mask": MASK["mask"]}, "torch_mask: .* which is not @triton.jit, got "),
        ({**MASK, "torch_mask": 3}, "torch_mask: expected a function, got int"),
        ({**ADDITIVE, "score": _score}, "score: expected a @triton.jit function"),
        ({**SCORE, **SCORE_GRAD, "score_grad": _score_grad}, "score_grad: .* @triton.jit function"),
        ({**ADDITIVE, **ARG_GRAD, "arg_grad": _arg_grad}, "arg_grad: .* @triton.jit function"),
        ({**MASK, **BOUNDS, "key_bounds": _bounds}, "key_bounds: .* @triton.jit function"),
        ({**MASK, **BOUNDS, "query_bounds": _bounds}, "query_bounds: .* @triton.jit function"),
        ({**MASK, "check": 1}, "check: expected a function, got int"),
        ({"sink_logit": 1}, "sink_logit: expected a function, got int"),
        ({**MASK, "mask": triton.jit(_score)}, r"mask: .* parameters \(b, h, .*\), got \(s, b, h,"),
        ({**MASK, "torch_mask": _score}, "torch_mask: expected the parameters"),
        ({**ADDITIVE, "torch_score": lambda s, b, h: s}, r"torch_score: .* got \(s, b, h\)"),
        (
            {**MASK, **BOUNDS, "torch_key_bounds": _bounds},
            r"torch_key_bounds: .* \(b, q_first, q_last, .*\), got \(b, h, first",
        ),
        ({**MASK, "check": lambda args: None}, r"check: .* \(args, shape\), got \(args\)"),
        ({**MASK, "maks": MASK["mask"]}, "maks: no such hook; expected mask, score,"),
        ({**MASK, "module": "m"}, "module: no such hook"),
        ({**ADDITIVE, "additive": 1}, "additive: expected True or False, got 1"),
        ({**MASK, **BOUNDS, "batched_bounds": _mask}, "batched_bounds: expected True or False"),
    ],
)
def test_hooks_of_the_wrong_kind(given, message):
    before = dict(base._TYPES)
    with pytest.raises(TypeError, match=f"variant 'test_wrong': {message}"):
        fa.define_variant("test_wrong", **given)
    assert before == base._TYPES


@pytest.mark.parametrize("name", ["", "two words", "a:b", "tab\t"])
def test_names_that_an_operator_cannot_carry(name):
    with pytest.raises(ValueError, match="name: expected a str without spaces and colons"):
        fa.define_variant(name, **MASK)
    with pytest.raises(TypeError, match="name: expected a str, got int"):
        fa.define_variant(3, **MASK)


@pytest.mark.parametrize("given", COMPLETE)
def test_complete_definitions_pass(given):
    """Twins with *args, with defaults or without a signature that Python knows pass as well."""
    loose = {
        hook: (lambda *args: None) if hook.startswith("torch") else value
        for hook, value in given.items()
    }
    for hooks_given in (given, loose, {**given, "check": dict}, {**given, "check": None}):
        fa.define_variant("test_complete", **hooks_given)
        base._TYPES.pop("test_complete")


def test_without_triton_hooks_are_plain_functions(monkeypatch):
    for module in (hooks, _triton):
        monkeypatch.setattr(module, "AVAILABLE", False)
    monkeypatch.setattr(_triton, "JitFunction", ())
    fa.define_variant("test_plain", mask=_mask, torch_mask=_mask)
    base._TYPES.pop("test_plain")
    with pytest.raises(TypeError, match="'test_plain': mask: expected the parameters"):
        fa.define_variant("test_plain", mask=_score, torch_mask=_mask)
    with pytest.raises(TypeError, match="'test_plain': mask: expected a function, got int"):
        fa.define_variant("test_plain", mask=3, torch_mask=_mask)


def test_names_belong_to_modules():
    """The defining module may redefine a variant (as a notebook cell does); others may not."""
    kept = base._TYPES["causal"]
    with pytest.raises(ValueError, match="'causal' is already defined by module 'fused_attention"):
        fa.define_variant("causal", **MASK)
    assert base._TYPES["causal"] is kept
    first = fa.define_variant("test_mine", **MASK)
    second = fa.define_variant("test_mine", **MASK)
    assert base._TYPES.pop("test_mine") is second is not first
    with pytest.raises(ValueError, match="'test_mine' is not defined in this process"):
        base.decode("test_mine:", [], [])
