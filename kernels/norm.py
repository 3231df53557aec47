"""LayerNorm and RMSNorm, forward and backward, of an input or of its sum with a residual.

Ba et al. 2016 (arXiv 1607.06450); Zhang and Sennrich 2019 (arXiv 1910.07467).

    M, N      rows, and columns, over which each row is normalized; x, y, ... are (M, N) with
              contiguous columns
    h         the input of the norm: x, or residual + dropout(x) rounded to the dtype of the sum
    mean, rstd    of each row of h, (M,), fp32; RMSNorm (CENTERED false) has no mean
    xhat      (h - mean) * rstd;  y = xhat * weight + bias

Rows that fit in the registers of a program are read once: a program holds BLOCK_M rows of
BLOCK_N >= N columns.  Longer rows are read twice in tiles of BLOCK_N columns, the second time from
the cache.

    dh = rstd * (g - mean(g) - xhat * mean(g * xhat)),  g = dy * weight      (RMSNorm: no mean(g))

The gradients of weight and bias are sums over rows.  Every program adds up its rows in fp32, and a
second kernel adds up the programs, both in a fixed order: the bits are the same every time.
"""

import triton
import triton.language as tl

from .dropout import keep_tile
from .numerics import round_to


@triton.jit
def _tile(ptr, rows, offs_n, stride, keep):
    """Rows ``rows`` (M, 1) and columns ``offs_n``, in fp32; 0 where not ``keep``."""
    pointers = ptr + rows.to(tl.int64) * stride + offs_n[None, :]
    return tl.load(pointers, mask=keep, other=0.0).to(tl.float32)


@triton.jit
def _store(ptr, rows, offs_n, stride, keep, x):
    pointers = ptr + rows.to(tl.int64) * stride + offs_n[None, :]
    tl.store(pointers, round_to(x, ptr.dtype.element_ty), mask=keep)


@triton.jit
def _dropped(x, seed_ptr, rows, start_n, dropout_threshold, dropout_scale, BLOCK_N: tl.constexpr):
    """``x`` after dropout: scaled where kept, times 0 elsewhere; unchanged without a seed."""
    if seed_ptr is not None:
        zero = tl.program_id(0) * 0
        kept = keep_tile(seed_ptr, zero, zero, rows, start_n, dropout_threshold, BLOCK_N)
        x = tl.where(kept, x * dropout_scale, x * 0.0)  # NaN is not dropped, as in PyTorch
    return x


@triton.jit
def _norm_input(
    x_ptr,
    residual_ptr,
    sum_ptr,
    seed_ptr,
    rows,
    start_n,
    stride_xm,
    stride_rm,
    num_columns,
    keep,
    dropout_threshold,
    dropout_scale,
    BLOCK_N: tl.constexpr,
):
    """h, (M, BLOCK_N); if there is a residual, the sum is stored at ``sum_ptr``."""
    offs_n = start_n + tl.arange(0, BLOCK_N)
    h = _tile(x_ptr, rows, offs_n, stride_xm, keep)
    if residual_ptr is not None:
        h = _dropped(h, seed_ptr, rows, start_n, dropout_threshold, dropout_scale, BLOCK_N)
        h += _tile(residual_ptr, rows, offs_n, stride_rm, keep)
        h = round_to(h, sum_ptr.dtype.element_ty).to(tl.float32)
        _store(sum_ptr, rows, offs_n, num_columns, keep, h)
    return h


@triton.jit
def _pivot(x_ptr, residual_ptr, sum_ptr, rows, num_rows, stride_xm, stride_rm):
    """The first element of each row, before dropout, (M, 1): a number near the mean.

    The pivot is subtracted before summing, so that a large offset does not cancel and a constant
    row gets variance 0.  If the element is not finite, the pivot is 0.
    """
    offs = rows.to(tl.int64)
    pivot = tl.load(x_ptr + offs * stride_xm, mask=rows < num_rows, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        residual = tl.load(residual_ptr + offs * stride_rm, mask=rows < num_rows, other=0.0)
        pivot = round_to(pivot + residual, sum_ptr.dtype.element_ty).to(tl.float32)
    return tl.where(tl.abs(pivot) < float("inf"), pivot, 0.0)


@triton.jit
def _weighted(x, weight_ptr, offs_n, num_columns):
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + offs_n, mask=offs_n < num_columns, other=0.0)
        x = x * weight.to(tl.float32)[None, :]
    return x


@triton.jit
def _affine(y, weight_ptr, bias_ptr, offs_n, num_columns):
    """``y * weight + bias``; either may be absent."""
    y = _weighted(y, weight_ptr, offs_n, num_columns)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + offs_n, mask=offs_n < num_columns, other=0.0)
        y = y + bias.to(tl.float32)[None, :]
    return y


@triton.jit(do_not_specialize=["num_rows"])
def _norm_forward_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    seed_ptr,
    y_ptr,
    sum_ptr,
    mean_ptr,
    rstd_ptr,
    stride_xm,
    stride_rm,
    num_rows,
    num_columns,
    eps,
    dropout_threshold,
    dropout_scale,
    CENTERED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = offs_m[:, None]
    offs_n = tl.arange(0, BLOCK_N)
    keep = (rows < num_rows) & (offs_n < num_columns)[None, :]
    h = _norm_input(
        *(x_ptr, residual_ptr, sum_ptr, seed_ptr, rows, 0, stride_xm, stride_rm, num_columns),
        *(keep, dropout_threshold, dropout_scale, BLOCK_N),
    )  # (M, N)
    if CENTERED:
        pivot = _pivot(x_ptr, residual_ptr, sum_ptr, rows, num_rows, stride_xm, stride_rm)
        h = tl.where(keep, h - pivot, 0.0)
        mean = (tl.sum(h, 1) / num_columns)[:, None]
        h = tl.where(keep, h - mean, 0.0)
        tl.store(mean_ptr + rows, mean + pivot, mask=rows < num_rows)
    rstd = tl.rsqrt(tl.sum(h * h, 1) / num_columns + eps)
    tl.store(rstd_ptr + offs_m, rstd, mask=offs_m < num_rows)
    y = _affine(h * rstd[:, None], weight_ptr, bias_ptr, offs_n, num_columns)
    _store(y_ptr, rows, offs_n, num_columns, keep, y)


@triton.jit(do_not_specialize=["num_rows"])
def _norm_forward_long_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    seed_ptr,
    y_ptr,
    sum_ptr,
    mean_ptr,
    rstd_ptr,
    stride_xm,
    stride_rm,
    num_rows,
    num_columns,
    eps,
    dropout_threshold,
    dropout_scale,
    CENTERED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row = tl.program_id(0)
    rows = tl.full([1, 1], 0, tl.int32) + row
    if CENTERED:
        pivot = _pivot(x_ptr, residual_ptr, sum_ptr, rows, num_rows, stride_xm, stride_rm)
    else:
        pivot = tl.zeros([1, 1], tl.float32)
    # Running mean, relative to the pivot, and sum of squared deviations: Chan et al. 1979.
    mean = tl.zeros([1], tl.float32)
    squares = tl.zeros([1], tl.float32)
    for start_n in tl.range(0, num_columns, BLOCK_N):
        keep = (start_n + tl.arange(0, BLOCK_N) < num_columns)[None, :]
        h = _norm_input(
            *(x_ptr, residual_ptr, sum_ptr, seed_ptr, rows, start_n, stride_xm, stride_rm),
            *(num_columns, keep, dropout_threshold, dropout_scale, BLOCK_N),
        )  # (1, N)
        if CENTERED:
            count = tl.minimum(num_columns - start_n, BLOCK_N).to(tl.float32)
            h = tl.where(keep, h - pivot, 0.0)
            tile_mean = tl.sum(h, 1) / count
            h = tl.where(keep, h - tile_mean[:, None], 0.0)
            apart = tile_mean - mean
            share = count / (start_n + count)
            mean += apart * share
            squares += start_n * share * apart * apart
        squares += tl.sum(h * h, 1)
    rstd = tl.rsqrt(squares / num_columns + eps)
    if CENTERED:
        tl.store(mean_ptr + rows, mean[:, None] + pivot)
    tl.store(rstd_ptr + row + tl.arange(0, 1), rstd)

    if residual_ptr is not None:  # the sum, as stored, is the input of the norm
        tl.debug_barrier()
        x_ptr = sum_ptr
        stride_xm = num_columns
    for start_n in tl.range(0, num_columns, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        keep = (offs_n < num_columns)[None, :]
        h = _tile(x_ptr, rows, offs_n, stride_xm, keep)  # (1, N)
        y = (h - pivot - mean[:, None]) * rstd[:, None]
        y = _affine(y, weight_ptr, bias_ptr, offs_n, num_columns)
        _store(y_ptr, rows, offs_n, num_columns, keep, y)


@triton.jit
def _normalized(h, mean_ptr, rstd_ptr, rows, keep, num_rows):
    """xhat and rstd of rows, from their statistics; 0 outside the matrix."""
    rstd = tl.load(rstd_ptr + rows, mask=rows < num_rows, other=0.0)
    if mean_ptr is not None:
        mean = tl.load(mean_ptr + rows, mask=rows < num_rows, other=0.0)
        h = tl.where(keep, h - mean, 0.0)
    return h * rstd, rstd


@triton.jit
def _store_input_gradients(
    dh,
    dsum_ptr,
    dresidual_ptr,
    dx_ptr,
    seed_ptr,
    rows,
    start_n,
    num_columns,
    keep,
    dropout_threshold,
    dropout_scale,
    BLOCK_N: tl.constexpr,
):
    """Store dh plus the gradient of the sum as dresidual, and after dropout as dx."""
    offs_n = start_n + tl.arange(0, BLOCK_N)
    if dsum_ptr is not None:
        dh += _tile(dsum_ptr, rows, offs_n, num_columns, keep)
    if dresidual_ptr is not None:
        _store(dresidual_ptr, rows, offs_n, num_columns, keep, dh)
    if dx_ptr is not None:
        dx = _dropped(dh, seed_ptr, rows, start_n, dropout_threshold, dropout_scale, BLOCK_N)
        _store(dx_ptr, rows, offs_n, num_columns, keep, dx)


@triton.jit(do_not_specialize=["num_rows"])
def _norm_backward_kernel(
    dy_ptr,
    dsum_ptr,
    h_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    seed_ptr,
    dx_ptr,
    dresidual_ptr,
    dweight_ptr,
    dbias_ptr,
    stride_hm,
    num_rows,
    num_columns,
    dropout_threshold,
    dropout_scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    offs_n = tl.arange(0, BLOCK_N)
    dweight = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    dbias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    step = tl.num_programs(0) * BLOCK_M
    for start_m in tl.range(tl.program_id(0) * BLOCK_M, num_rows, step):
        rows = (start_m + tl.arange(0, BLOCK_M))[:, None]
        keep = (rows < num_rows) & (offs_n < num_columns)[None, :]
        h = _tile(h_ptr, rows, offs_n, stride_hm, keep)  # (M, N)
        dy = _tile(dy_ptr, rows, offs_n, num_columns, keep)  # (M, N)
        xhat, rstd = _normalized(h, mean_ptr, rstd_ptr, rows, keep, num_rows)
        if dweight_ptr is not None:
            dweight += dy * xhat
        if dbias_ptr is not None:
            dbias += dy
        g = _weighted(dy, weight_ptr, offs_n, num_columns)
        dh = g - xhat * (tl.sum(g * xhat, 1) / num_columns)[:, None]
        if mean_ptr is not None:
            dh -= (tl.sum(g, 1) / num_columns)[:, None]
        _store_input_gradients(
            *(dh * rstd, dsum_ptr, dresidual_ptr, dx_ptr, seed_ptr, rows, 0, num_columns, keep),
            *(dropout_threshold, dropout_scale, BLOCK_N),
        )
    partial = tl.program_id(0).to(tl.int64) * num_columns + offs_n
    if dweight_ptr is not None:
        tl.store(dweight_ptr + partial, tl.sum(dweight, 0), mask=offs_n < num_columns)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + partial, tl.sum(dbias, 0), mask=offs_n < num_columns)


@triton.jit(do_not_specialize=["num_rows"])
def _norm_backward_long_kernel(
    dy_ptr,
    dsum_ptr,
    h_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    seed_ptr,
    dx_ptr,
    dresidual_ptr,
    stride_hm,
    num_rows,
    num_columns,
    dropout_threshold,
    dropout_scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradients of x and residual, one row; `_norm_columns_kernel` does weight and bias."""
    rows = tl.full([1, 1], 0, tl.int32) + tl.program_id(0)
    along = tl.zeros([1, BLOCK_N], tl.float32)
    total = tl.zeros([1, BLOCK_N], tl.float32)
    for start_n in tl.range(0, num_columns, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        keep = (offs_n < num_columns)[None, :]
        h = _tile(h_ptr, rows, offs_n, stride_hm, keep)  # (1, N)
        xhat, _ = _normalized(h, mean_ptr, rstd_ptr, rows, keep, num_rows)
        dy = _tile(dy_ptr, rows, offs_n, num_columns, keep)
        g = _weighted(dy, weight_ptr, offs_n, num_columns)
        along += g * xhat
        total += g
    along_mean = (tl.sum(along, 1) / num_columns)[:, None]
    total_mean = (tl.sum(total, 1) / num_columns)[:, None]
    for start_n in tl.range(0, num_columns, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        keep = (offs_n < num_columns)[None, :]
        h = _tile(h_ptr, rows, offs_n, stride_hm, keep)
        xhat, rstd = _normalized(h, mean_ptr, rstd_ptr, rows, keep, num_rows)
        dy = _tile(dy_ptr, rows, offs_n, num_columns, keep)
        dh = _weighted(dy, weight_ptr, offs_n, num_columns) - xhat * along_mean
        if mean_ptr is not None:
            dh -= total_mean
        _store_input_gradients(
            *(dh * rstd, dsum_ptr, dresidual_ptr, dx_ptr, seed_ptr, rows, start_n, num_columns),
            *(keep, dropout_threshold, dropout_scale, BLOCK_N),
        )


@triton.jit(do_not_specialize=["num_rows"])
def _norm_columns_kernel(
    dy_ptr,
    h_ptr,
    mean_ptr,
    rstd_ptr,
    dweight_ptr,
    dbias_ptr,
    stride_hm,
    num_rows,
    num_columns,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Partial gradients of weight and bias for a tile of columns; programs share the rows."""
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    dweight = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    dbias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    step = tl.num_programs(1) * BLOCK_M
    for start_m in tl.range(tl.program_id(1) * BLOCK_M, num_rows, step):
        rows = (start_m + tl.arange(0, BLOCK_M))[:, None]
        keep = (rows < num_rows) & (offs_n < num_columns)[None, :]
        dy = _tile(dy_ptr, rows, offs_n, num_columns, keep)  # (M, N)
        if dweight_ptr is not None:
            h = _tile(h_ptr, rows, offs_n, stride_hm, keep)
            xhat, _ = _normalized(h, mean_ptr, rstd_ptr, rows, keep, num_rows)
            dweight += dy * xhat
        if dbias_ptr is not None:
            dbias += dy
    partial = tl.program_id(1).to(tl.int64) * num_columns + offs_n
    if dweight_ptr is not None:
        tl.store(dweight_ptr + partial, tl.sum(dweight, 0), mask=offs_n < num_columns)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + partial, tl.sum(dbias, 0), mask=offs_n < num_columns)


@triton.jit(do_not_specialize=["num_partials"])
def _norm_reduce_kernel(
    partial_ptr,
    gradient_ptr,
    num_partials,
    num_columns,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Second stage: sum (partials, N) over its rows in fp32 and round once."""
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start_m in tl.range(0, num_partials, BLOCK_M):
        rows = (start_m + tl.arange(0, BLOCK_M))[:, None]
        keep = (rows < num_partials) & (offs_n < num_columns)[None, :]
        acc += _tile(partial_ptr, rows, offs_n, num_columns, keep)
    total = round_to(tl.sum(acc, 0), gradient_ptr.dtype.element_ty)
    tl.store(gradient_ptr + offs_n, total, mask=offs_n < num_columns)


def _launch(config) -> dict:
    return dict(BLOCK_M=config.block_m, BLOCK_N=config.block_n, num_warps=config.num_warps)


def norm_forward(*args) -> None:
    """Norm of rows that fit in a program; arguments as in `norm_forward_long`."""
    _forward(_norm_forward_kernel, *args)


def norm_forward_long(*args) -> None:
    """Norm of rows that do not fit in a program.

    Args:
        x, residual: (M, N) with contiguous columns; residual may be None.
        weight, bias: (N,) or None.
        y, h, mean, rstd: filled; ``h`` is None without a residual, ``mean`` for RMSNorm.
        eps: added to the variance.
        dropout: (seed or None, threshold, scale).
        config: has block_m, block_n and num_warps.
    """
    _forward(_norm_forward_long_kernel, *args)


def _forward(kernel, x, residual, weight, bias, y, h, mean, rstd, eps, dropout, config):
    num_rows, num_columns = x.shape
    seed, threshold, scale = dropout
    kernel[(triton.cdiv(num_rows, config.block_m),)](
        *(x, residual, weight, bias, seed, y, h, mean, rstd),
        *(x.stride(0), 0 if residual is None else residual.stride(0)),
        *(num_rows, num_columns, eps, threshold, scale),
        CENTERED=mean is not None,
        **_launch(config),
    )


def norm_backward(
    dy, dsum, h, weight, mean, rstd, dx, dresidual, dweight, dbias, dropout, programs, config
) -> None:
    """Gradients of rows that fit in a program; fills those that are not None.

    ``dx`` and ``dresidual`` are (M, N), the partial ``dweight`` and ``dbias`` (programs, N), fp32.
    The columns of ``h`` are contiguous, all other tensors are contiguous.
    """
    num_rows, num_columns = h.shape
    seed, threshold, scale = dropout
    _norm_backward_kernel[(programs,)](
        *(dy, dsum, h, weight, mean, rstd, seed, dx, dresidual, dweight, dbias),
        *(h.stride(0), num_rows, num_columns, threshold, scale),
        **_launch(config),
    )


def norm_backward_long(dy, dsum, h, weight, mean, rstd, dx, dresidual, dropout, config) -> None:
    """Gradients of rows that do not fit in a program; fills ``dx`` and ``dresidual`` if given."""
    num_rows, num_columns = h.shape
    seed, threshold, scale = dropout
    _norm_backward_long_kernel[(num_rows,)](
        *(dy, dsum, h, weight, mean, rstd, seed, dx, dresidual),
        *(h.stride(0), num_rows, num_columns, threshold, scale),
        **_launch(config),
    )


def norm_columns(dy, h, mean, rstd, dweight, dbias, programs, config) -> None:
    """Fill the partial ``dweight`` and ``dbias``, (programs, N), fp32, each if given."""
    num_rows, num_columns = h.shape
    _norm_columns_kernel[(triton.cdiv(num_columns, config.block_n), programs)](
        *(dy, h, mean, rstd, dweight, dbias, h.stride(0), num_rows, num_columns),
        **_launch(config),
    )


def norm_reduce(partial, gradient, config) -> None:
    """Fill ``gradient`` (N,) with the sum of ``partial`` (programs, N) over its rows."""
    num_partials, num_columns = partial.shape
    _norm_reduce_kernel[(triton.cdiv(num_columns, config.block_n),)](
        *(partial, gradient, num_partials, num_columns), **_launch(config)
    )
