"""The rounding band of `budget`: the error that every FlashAttention algorithm may have.

It matters where naive attention happens to be exact (powers of two, a single key, terms that
cancel) or is more exact because it stores the weights, which FlashAttention recomputes.  No
constant is tuned: the band is a first-order error analysis, evaluated in fp64 on the inputs.

    h      half a unit in the last place of the dtype of the inputs: one rounding
    u      a unit in the last place of fp32 (fp64 for fp64 inputs), in which sums accumulate; a
           rounding is uniform in ±u/2, so u is 3.5 of its standard deviations
    δ      the relative error of a weight exp(s - lse): u times the terms of s and lse.  Where the
           scores are exact it is u times the logarithm of the sum relative to the maximum: the
           maximum itself cancels, however large it is.  Above 1 the weight may be any

Roundings are assumed independent (Higham and Mary 2019): the squared errors of n terms add, and
the n partial sums of a sum err by √(n/2) u times its size.  Where rows of the inputs are equal,
their roundings are too, and absolute errors add: the worst case.  The band of a result has

1. h times the result, for storing it, and the smallest normal number, for underflow;
2. the effect of u in every sum and of δ in every weight;
3. for gradients of scores, the error of delta = rowsum(dO · O): it uses the stored O and rounded
   weights, 2 h times their absolute values.  Naive attention uses the weights themselves;
4. with a sink, h times dO: the gradient of the output without the sink is stored, too.

With fp64 inputs ``exact`` has the same rounding errors, so the band is doubled.
"""

import math

import torch

import fused_attention as fa

from . import stacks
from .inputs import Inputs

# The exponential of ATen's CPU flash kernel errs by 5.4e-5 in fp16 and bf16.  That is below h, the
# rounding of the weights, but it reaches the fp32 LSE.  test_attention.py measures it.
ATEN_HALF_EXP = 2.0**-14


def band(inputs: Inputs, exact, *, scale=None, dropout_p=0.0, seed=0) -> dict[str, torch.Tensor]:
    """The rounding band of each result, elementwise."""
    dtype = inputs.q.dtype
    h = torch.finfo(dtype).eps / 2
    u = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    errors = Errors(u, inputs.repeats)
    add, sums = errors.add, errors.sums
    inputs = inputs.double()
    q, do, kv_heads = inputs.q, inputs.do, inputs.k.shape[1]
    k, v = (x.repeat_interleave(q.shape[1] // max(1, kv_heads), 1) for x in (inputs.k, inputs.v))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    p, w = weights(inputs, scale, dropout_p, seed)
    kept = torch.where(p > 0, w / p, 0)
    out, lse = exact["out"], exact["lse"].nan_to_num(neginf=0)[..., None]
    ones = torch.ones_like(k[..., :1])

    chain = Chain(inputs, scale * q @ k.mT, errors)
    delta = chain.error(abs(scale) * sums(q, k.mT)) + u * (1 + lse.abs())
    if inputs.exact:
        delta = u * (1 + (lse - chain.scores[-1].amax(-1, keepdim=True)).abs()).expand_as(p)
    p_error = torch.where(delta > 1, 1, p * delta)
    dv = errors.over_group(add, (kept * p_error).mT, do, kv_heads)
    dv = dv + errors.over_group(sums, w.mT, do, kv_heads)
    total = (do * out).sum(-1, keepdim=True)
    noise = kept * sums(do, v.mT) + u * total.abs() + errors.row_sums(do, out)
    if inputs.dlse is not None:
        total = total - inputs.dlse[..., None]
        noise = noise + u * (total.abs() + inputs.dlse[..., None].abs())
    if any(x.type.sink_logit is not None for x in stacks.build(inputs.stack, inputs.tensors)):
        noise = noise + h * kept * add(do, v.mT)
        dv = dv + h * errors.over_group(add, w.mT, do, kv_heads)
    dp = kept * (do @ v.mT)
    ds = p * (dp - total)
    stored = 2 * h * errors.row_add(do, out.abs() + add(w, v))  # point 3

    bands = {
        "out": sums(w, v)
        + add(kept * p_error, v)
        + (add(p_error, ones) + sums(p, ones)) * out.abs(),
        "lse": add(p * delta, ones)[..., 0] + sums(p, ones)[..., 0] + u * lse[..., 0].abs(),
        "dv": dv,
    }
    own = p_error * (dp - total).abs() + p * (noise + u * dp.abs())
    own, common, ds, arguments = chain.back(own, p * stored, ds)
    bands |= arguments
    total_noise = stored + u * total.abs() + errors.row_sums(do, out) + add(p_error * dp, ones)
    bands |= _sink_logits(inputs, lse, bands["lse"][..., None], total, total_noise, errors)
    bands["dq"] = abs(scale) * (add(own, k) + (common @ k).abs() + sums(ds, k))
    bands["dq"] = bands["dq"] + (0 if inputs.exact else u * lse.abs()) * exact["dq"].abs()
    bands["dk"] = abs(scale) * (
        errors.over_group(add, own.mT, q, kv_heads)
        + errors.over_group(add, common.mT, q, kv_heads)
        + errors.over_group(sums, ds.mT, q, kv_heads)
    )
    once = 2 if dtype == torch.float64 else 1
    stored = {name: u / 2 if name == "lse" else h for name in bands}
    least = torch.finfo(dtype).smallest_normal
    finite = {name: x.abs().nan_to_num(posinf=0) for name, x in exact.items()}
    return {name: once * (bands[name] + stored[name] * finite[name]) + least for name in exact}


def _sink_logits(inputs, lse, lse_error, total, noise, errors):
    """The bands of the gradients of sink logits.

    Such a gradient is the sum over rows of p (dLSE - dO · O), where ``noise`` is the error of the
    parentheses and p = exp(logit - lse) has the relative error of the LSE.
    """
    bands = {}
    names = stacks.argument_names(inputs.stack)
    variants = stacks.build(inputs.stack, inputs.tensors)
    for name, variant in zip(names, variants, strict=True):
        if variant.type.sink_logit is not None:
            logits = variant.type.sink_logit(variant.args)[:, None, None]
            p = torch.exp(logits - lse)  # (B, H, M, 1)
            weight = lse_error + errors.u * (1 + lse.abs() + logits.abs())
            rows = p * (noise + weight * total.abs())
            band = errors.sum_to(rows, (1, rows.shape[1], 1, 1), along_keys=False)
            bands[f"d{name}"] = band.flatten()
    return bands


def weights(inputs, scale, dropout_p, seed):
    """The attention weights before and after dropout."""
    found = []
    for p in (0.0, dropout_p):
        torch.manual_seed(seed)
        variants = stacks.build(inputs.stack, inputs.tensors)
        options = {"scale": scale, "dropout_p": p, "return_weights": True}
        results = fa.reference.attention(inputs.q, inputs.k, inputs.v, variants, **options)
        found.append(results.weights)
    return found


class Errors:
    """The error of a product x @ y: `add` if ``x`` is the error of a factor, `sums` of summing."""

    def __init__(self, u, repeats):
        self.u, self.repeats = u, repeats

    def add(self, x, y):
        if self.repeats:
            return x.abs() @ y.abs()
        return (x.square() @ y.square()).sqrt()

    def sums(self, x, y):
        size = torch.hypot(self.add(x, y), x @ y)
        return self.u * math.sqrt(x.shape[-1] / 2) * size

    def row_add(self, x, y):
        """`add` of a row-wise dot product, (..., 1)."""
        return self.add(x[..., None, :], y[..., None])[..., 0]

    def row_sums(self, x, y):
        return self.sums(x[..., None, :], y[..., None])[..., 0]

    def over_group(self, add, x, y, kv_heads):
        """(B, H, N, M) @ (B, H, M, D), summed over M and the heads of a group: (B, K, N, D)."""
        if kv_heads == 0:
            return x.new_zeros(x.shape[0], 0, x.shape[2], y.shape[3])
        x = x.unflatten(1, (kv_heads, -1)).transpose(2, 3).flatten(3)
        return add(x, y.unflatten(1, (kv_heads, -1)).flatten(2, 3))

    def sum_to(self, x, shape, *, along_keys):
        """The error after a sum to the shape of an argument.

        ``along_keys``: the errors of a row are one common error, so their signed values add.
        """
        if shape[3] == 1:
            ones = x.new_ones(*x.shape[:2], x.shape[3], 1)
            x = x.sum(-1, keepdim=True) if along_keys else self.add(x, ones)
        over = [d for d in range(3) if shape[d] == 1]
        if not over:
            return x.abs()
        if self.repeats:
            return x.abs().sum(over, keepdim=True)
        return x.square().sum(over, keepdim=True).sqrt()

    def sum_at(self, x, index, shape, *, along_keys):
        """`sum_to` for a table of ``shape``, whose entries are read at ``index``."""
        if along_keys:
            entries = torch.arange(math.prod(shape), device=x.device).expand(*x.shape[:3], -1)
            x = x.new_zeros(entries.shape).scatter_add(-1, index, x)
            index = entries
        if self.repeats:
            return _at(x.abs(), index, shape)
        return _at(x.square(), index, shape).sqrt()


def _at(x, index, shape):
    """The sums of ``x`` for each entry of a table of ``shape``."""
    flat = x.new_zeros(math.prod(shape))
    return flat.index_put((index.flatten(),), x.flatten(), accumulate=True).view(shape)


class Chain:
    """Propagates errors forward and backward through the score variants of a stack."""

    def __init__(self, inputs, scores, errors):
        self.errors = errors
        names = stacks.argument_names(inputs.stack)
        variants = zip(names, stacks.build(inputs.stack, inputs.tensors), strict=True)
        self.named = [(name, x) for name, x in variants if x.type.score is not None]
        rows, keys = scores.shape[2:]
        b, h, row, kv_idx = (
            torch.arange(n, device=scores.device).view([-1 if d == i else 1 for d in range(4)])
            for i, n in enumerate(scores.shape)
        )
        self.where = (b, h, row + keys - rows, kv_idx, rows, keys)
        self.scores = [scores]
        for _, variant in self.named:
            self.scores.append(variant.torch_score(self.scores[-1], *self.where))

    def error(self, raw):
        """The error of the final scores, given that of the raw ones."""
        error = raw + self.errors.u * self.scores[0].abs()
        for i in range(len(self.named)):
            error = self._derivative(i, error).abs() + self.errors.u * self.scores[i + 1].abs()
        return error

    def back(self, own, common, ds):
        """Errors and gradient at the raw scores, and the errors of the arguments' gradients.

        ``own``: independent errors, one per score.  ``common``: errors that a row shares.
        ``ds``: the gradient.  The derivative of a hook has an absolute error of u, which counts
        where the derivative itself is near zero.
        """
        arguments = {}
        for i in reversed(range(len(self.named))):
            name, variant = self.named[i]
            kind, args = variant.type, variant.args
            if kind.torch_arg_grad is not None:
                terms = [
                    kind.torch_arg_grad(x, self.scores[i], *self.where, args)
                    for x in (own, common, ds)
                ]
                arguments[f"d{name}"] = self._argument(kind, args, *terms)
            own = self._derivative(i, own).abs()
            if not kind.additive:
                own = own + self.errors.u * ds.abs()
            common, ds = self._derivative(i, common), self._derivative(i, ds)
        return own, common, ds, arguments

    def _argument(self, kind, args, own, common, contributions):
        """The error of the gradient of an argument: a sum of contributions with these errors."""
        errors, shape = self.errors, args[0].shape
        if kind.torch_arg_index is None:
            length = math.prod(contributions.shape) / max(1, math.prod(shape))
            root = math.sqrt(length / 2)
            total = contributions.sum_to_size(shape)
            own = errors.sum_to(own, shape, along_keys=False)
            common = errors.sum_to(common, shape, along_keys=True)
            size = errors.sum_to(contributions, shape, along_keys=False)
        else:
            index = kind.torch_arg_index(*self.where, args).expand(contributions.shape)
            root = (_at(torch.ones_like(contributions), index, shape) / 2).sqrt()
            total = _at(contributions, index, shape)
            own = errors.sum_at(own, index, shape, along_keys=False)
            common = errors.sum_at(common, index, shape, along_keys=True)
            size = errors.sum_at(contributions, index, shape, along_keys=False)
        return own + common + errors.u * root * torch.hypot(size, total)

    def _derivative(self, i, ds):
        kind, args = self.named[i][1].type, self.named[i][1].args
        if kind.additive:
            return ds
        return kind.torch_score_grad(ds, self.scores[i], self.scores[i + 1], *self.where, args)
