"""Sums of prices and quantities that cannot wrap, and their exact quotients.

A price or quantity is an integer below 2^63, so two of them may already add up to more than 64 bits hold.
Their sums are kept in *limbs* of 32 bits, lowest first, which are added up separately and never carried:
value = Σ limb[i] · 2^(32 i). Limbs are linear in what was added: those of a bar depend only on its ticks, and
those of a window are the differences of running sums.

Capacity: one addend puts less than 2^34 into a limb, so a window of 2^29 addends fits, and the longest
window, a minute, has a hundred thousand at most. A running sum over years may wrap; the difference of two is
exact modulo 2^64 all the same, and it fits.

Features are ratios. `ratio` gives the correctly rounded quotient of two exact integers, which is the same
double in whatever unit both are counted.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

LIMB_BITS = 32
_MASK = 2**LIMB_BITS - 1
_BASE = 2.0**LIMB_BITS
_EXACT = 2.0**53  # below it every integer is a double

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def split(values: Ints) -> Ints:
    """The limbs of 64-bit integers of any sign. Shape (2, *values.shape)."""
    limbs = np.empty((2, *values.shape), np.int64)
    np.bitwise_and(values, _MASK, out=limbs[0])
    np.right_shift(values, LIMB_BITS, out=limbs[1])  # rounds down, so that the lower limb is never negative
    return limbs


def products(a: Ints, b: Ints) -> Ints:
    """The limbs of `a * b`, both from 0 to 2^63 - 1. Shape (4, *a.shape)."""
    parts = split(a).view(np.uint64)[:, None] * split(b).view(np.uint64)  # (2, 2, ...), below 2^64
    low, high = (parts & np.uint64(_MASK)).view(np.int64), (parts >> np.uint64(LIMB_BITS)).view(np.int64)
    limbs = np.empty((4, *a.shape), np.int64)
    limbs[0], limbs[3] = low[0, 0], high[1, 1]
    np.add(low[0, 1], low[1, 0], out=limbs[1])
    limbs[1] += high[0, 0]
    np.add(high[0, 1], high[1, 0], out=limbs[2])
    limbs[2] += low[1, 1]
    return limbs


def single(limbs: Ints) -> Ints:
    """The values of `limbs`, of shape (2, N), which are below 2^63; 0 where negative. Shape (N,)."""
    low, high = limbs
    high = high + (low >> LIMB_BITS)
    return np.where(high < 0, 0, (high << LIMB_BITS) + (low & _MASK))


def total(rows: Ints) -> int:
    """The sum of a field of limbs, of shape (rows, limbs)."""
    return sum(limb << (LIMB_BITS * n) for n, limb in enumerate(rows.sum(axis=0).tolist()))


def integers(limbs: Ints) -> list[int]:
    """The values of `limbs`, of shape (limbs, N), as Python integers."""
    *lower, values = limbs.tolist()
    for row in reversed(lower):
        values = [(value << LIMB_BITS) + limb for value, limb in zip(values, row, strict=True)]
    return list(values)


def running(values: Ints) -> Ints:
    """Sums of the first n `values` along the last axis, for n from 0 on. Shape (..., N + 1)."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), np.int64)
    np.cumsum(values, axis=-1, dtype=np.int64, out=sums[..., 1:])
    return sums


def ratio(numerator: Ints, denominator: Ints, times: Ints | int = 1) -> Floats:
    """`numerator * times / denominator`, correctly rounded; 0 where the denominator is.

    Numerator and denominator come as limbs, (limbs, ..., N) and (limbs, N); `times` are integers below 2^53,
    of shape (N,). The result has the shape (..., N).
    """
    shape = numerator.shape[1:]
    if shape[-1] == 1:  # a single row, as in serving: two dozen numpy calls cost more than Python's integers
        (by,), factor = integers(denominator), times if isinstance(times, int) else int(times[0])
        above_it = integers(numerator.reshape(len(numerator), -1))
        quotients = [value * factor / by for value in above_it] if by else [0.0] * len(above_it)
        return np.array(quotients).reshape(shape)
    above, below = _doubles(numerator) * times + 0.0, _doubles(denominator)  # 0, never -0, as below
    is_exact = (np.abs(above) < _EXACT) & (np.abs(below) < _EXACT)  # False for NaN
    found = np.divide(above, below, out=np.zeros(shape), where=below != 0)
    if not is_exact.all():
        left = ~is_exact
        wide = np.stack([np.broadcast_to(limb, shape)[left] for limb in denominator])
        found[left] = _quotients(numerator[:, left], wide, np.broadcast_to(times, shape)[left])
    return found


def _doubles(limbs: Ints) -> Floats:
    """The values of `limbs` if doubles hold them exactly; otherwise NaN, or 2^53 and more. Shape (..., N)."""
    parts = limbs.astype(float)
    values = parts[-1]
    for part in parts[-2::-1]:
        values = values * _BASE + part
    sizes = np.abs(parts)
    if sizes.max(initial=0) >= _EXACT:
        values = np.where((sizes < _EXACT).all(axis=0), values, np.nan)
    return np.asarray(values)


def _quotients(numerator: Ints, denominator: Ints, times: Ints | int) -> Floats:
    """`ratio` by Python's integers, whose quotient is correctly rounded at any size; flat."""
    above, below = (integers(limbs.reshape(len(limbs), -1)) for limbs in (numerator, denominator))
    factors = [times] if isinstance(times, int) else times.tolist()
    pairs = zip(above, itertools.cycle(below), itertools.cycle(factors), strict=False)
    return np.array([value * factor / by if by else 0.0 for value, by, factor in pairs], float)
