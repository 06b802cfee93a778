"""Fourier transforms of columns, a vector wide, in a panel that fits the first-level cache.

Written as LLVM's vectors. Neither order nor scale of a spectrum is restored: see `passes`. Numba's
cache does not notice a change to this file: remove it after one.
"""

import math

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from fastkernel._loops._processor import VECTOR_BYTES
from fastkernel._loops.passes import lanes

_CONTRACT = ("contract",)


class _Emitter:
    """Emits operations on vectors of complex numbers, each a pair of registers."""

    def __init__(self, context, builder, array_type):
        self.builder = builder
        self.index = ir.IntType(64)
        pixel = context.get_data_type(array_type.dtype)
        self.bytes = context.get_abi_sizeof(pixel)
        self.lanes = VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(pixel, self.lanes)

    def number(self, value):
        return ir.Constant(self.index, value)

    def everywhere(self, value):
        """Return a vector with ``value`` in every lane."""
        if isinstance(value, float):
            return ir.Constant(self.vector, [value] * self.lanes)
        number = ir.IntType(32)
        empty = ir.Constant(self.vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(number, self.lanes), None)
        first = self.builder.insert_element(empty, value, ir.Constant(number, 0))
        return self.builder.shuffle_vector(first, empty, zeros)

    def _pointer(self, data, place):
        b = self.builder
        return b.bitcast(b.gep(data, [place]), self.vector.as_pointer())

    def load(self, pair, place):
        return tuple(
            self.builder.load(self._pointer(part, place), align=self.bytes) for part in pair
        )

    def store(self, values, pair, place):
        for value, part in zip(values, pair, strict=True):
            self.builder.store(value, self._pointer(part, place), align=self.bytes)

    def factor(self, table, place):
        """Load one complex number into all lanes."""
        b = self.builder
        places = place, b.add(place, self.number(1))
        return tuple(self.everywhere(b.load(b.gep(table, [at]))) for at in places)

    def _add(self, x, y):
        return self.builder.fadd(x, y, flags=_CONTRACT)

    def _subtract(self, x, y):
        return self.builder.fsub(x, y, flags=_CONTRACT)

    def _times(self, x, y):
        return self.builder.fmul(x, y, flags=_CONTRACT)

    def add(self, x, y):
        return tuple(map(self._add, x, y))

    def subtract(self, x, y):
        return tuple(map(self._subtract, x, y))

    def add_turned(self, x, y, turn):
        """Return ``x + turn * 1j * y``."""
        if turn == -1:
            return self._add(x[0], y[1]), self._subtract(x[1], y[0])
        if turn == 1:
            return self._subtract(x[0], y[1]), self._add(x[1], y[0])
        return self._add_scaled(x[0], y[1], -turn), self._add_scaled(x[1], y[0], turn)

    def _add_scaled(self, x, y, factor):
        """Return ``x + factor * y``, in one operation where the processor has that."""
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [y, self.everywhere(factor), x])

    def add_scaled(self, x, y, factor):
        """Return ``x + factor * y``."""
        return tuple(self._add_scaled(a, b, factor) for a, b in zip(x, y, strict=True))

    def multiply(self, x, y, conjugated=False):
        """Return ``x * y``, or ``x * conj(y)``."""
        straight, crossed = self._times(x[0], y[0]), self._times(x[1], y[0])
        if conjugated:
            return (
                self._add(straight, self._times(x[1], y[1])),
                self._subtract(crossed, self._times(x[0], y[1])),
            )
        return (
            self._subtract(straight, self._times(x[1], y[1])),
            self._add(crossed, self._times(x[0], y[1])),
        )

    def transform(self, x, sign):
        """Return the discrete Fourier transform of 4, 6 or 8 vectors, with ``exp(sign * ...)``."""
        return {4: self._of_four, 6: self._of_six, 8: self._of_eight}[len(x)](x, sign)

    def _of_three(self, x, sign):
        total, difference = self.add(x[1], x[2]), self.subtract(x[1], x[2])
        middle, turn = self.add_scaled(x[0], total, -0.5), sign * math.sqrt(0.75)
        return [
            self.add(x[0], total),
            self.add_turned(middle, difference, turn),
            self.add_turned(middle, difference, -turn),
        ]

    def _of_six(self, x, sign):
        # Two and three have no common divisor: no factors stand between their transforms.
        even, odd = (self._of_three([x[(k + 2 * i) % 6] for i in range(3)], sign) for k in (0, 3))
        found = [None] * 6
        for i in range(3):
            found[4 * i % 6] = self.add(even[i], odd[i])
            found[(4 * i + 3) % 6] = self.subtract(even[i], odd[i])
        return found

    def _of_four(self, x, sign):
        even = self.add(x[0], x[2]), self.subtract(x[0], x[2])
        odd = self.add(x[1], x[3]), self.subtract(x[1], x[3])
        return [
            self.add(even[0], odd[0]),
            self.add_turned(even[1], odd[1], sign),
            self.subtract(even[0], odd[0]),
            self.add_turned(even[1], odd[1], -sign),
        ]

    def _of_eight(self, x, sign):
        even, odd = self._of_four(x[0::2], sign), self._of_four(x[1::2], sign)
        eighth = math.sqrt(0.5)
        first = self.add_turned(odd[1], odd[1], sign)
        # (sign * 1j - 1) * z is sign * 1j * (z + sign * 1j * z).
        third = self.add_turned(odd[3], odd[3], sign)
        return [
            self.add(even[0], odd[0]),
            self.add_scaled(even[1], first, eighth),
            self.add_turned(even[2], odd[2], sign),
            self.add_turned(even[3], third, sign * eighth),
            self.subtract(even[0], odd[0]),
            self.add_scaled(even[1], first, -eighth),
            self.add_turned(even[2], odd[2], -sign),
            self.add_turned(even[3], third, -sign * eighth),
        ]


def _data(context, builder, signature, values, *places):
    """Return the pointers of some array arguments."""
    return [
        cgutils.create_struct_proxy(signature.args[i])(context, builder, value=values[i]).data
        for i in places
    ]


def _pass(radix, sign, *, turned):
    """Return the pass of a transform that takes ``radix`` points at a time.

    ``turned``: whether factors stand between it and the pass before (on the way back, ``sign`` 1)
    or after.
    """

    def plain(re, im, start, stride, out_re, out_im, out_start, out_stride, n, size, table, first):
        blocks, rest, width = n // size, size // radix, lanes(re.dtype)
        points = np.arange(n).reshape(blocks, radix, rest, 1)
        columns = np.arange(width)
        at = start + points * stride + columns
        x = re.ravel()[at].astype(complex) + 1j * im.ravel()[at]
        if turned:
            factors = table[first : first + 2 * (radix - 1) * rest].reshape(rest, radix - 1, 2)
            factors = np.concatenate([np.ones((rest, 1)), factors @ [1, 1j]], axis=1).T[:, :, None]
        if turned and sign > 0:
            x = x * factors.conj()
        x = np.fft.fft(x, axis=1) if sign < 0 else radix * np.fft.ifft(x, axis=1)
        if turned and sign < 0:
            x = x * factors
        at = out_start + points * out_stride + columns
        out_re.reshape(-1)[at], out_im.reshape(-1)[at] = x.real, x.imag

    def typed(
        typing_context,
        re,
        im,
        start,
        stride,
        out_re,
        out_im,
        out_start,
        out_stride,
        n,
        size,
        table,
        first,
    ):
        i = types.intp
        args = (re, im, i, i, out_re, out_im, i, i, i, i, table, i)

        def codegen(context, b, signature, values):
            e = _Emitter(context, b, signature.args[0])
            re, im, out_re, out_im, table = _data(context, b, signature, values, 0, 1, 4, 5, 10)
            start, stride, out_start, out_stride, n, size = (values[k] for k in (2, 3, 6, 7, 8, 9))
            rest = b.udiv(size, e.number(radix))
            step, out_step = b.mul(rest, stride), b.mul(rest, out_stride)

            def points(point, factors):
                """Transform the points ``point``, ``point + rest``, ... of a block."""
                at, x = b.add(start, b.mul(point, stride)), []
                for _ in range(radix):
                    x.append(e.load((re, im), at))
                    at = b.add(at, step)

                def turn(x):
                    places = [b.add(factors, e.number(2 * q)) for q in range(radix - 1)]
                    rest = [
                        e.multiply(value, e.factor(table, place), conjugated=sign > 0)
                        for value, place in zip(x[1:], places, strict=True)
                    ]
                    return [x[0], *rest]

                if turned and sign > 0:
                    x = turn(x)
                x = e.transform(x, sign)
                if turned and sign < 0:
                    x = turn(x)
                at = b.add(out_start, b.mul(point, out_stride))
                for value in x:
                    e.store(value, (out_re, out_im), at)
                    at = b.add(at, out_step)

            with cgutils.for_range_slice(b, e.number(0), n, size) as (block, _):
                if turned:
                    with cgutils.for_range(b, rest) as inner:
                        far = b.mul(inner.index, e.number(2 * (radix - 1)))
                        points(b.add(block, inner.index), b.add(values[11], far))
                else:  # the block is as large as the radix
                    points(block, None)
            return context.get_dummy_value()

        return types.void(*args), codegen

    return plain if config.DISABLE_JIT else intrinsic(typed)


_forward_4, _forward_6, _forward_8 = (_pass(radix, -1, turned=True) for radix in (4, 6, 8))
_back_4, _back_6, _back_8 = (_pass(radix, 1, turned=True) for radix in (4, 6, 8))
_last_4, _last_8 = (_pass(radix, -1, turned=False) for radix in (4, 8))
first_4, first_8 = (_pass(radix, 1, turned=False) for radix in (4, 8))


def _turning_point(radix):
    """Return the last pass there, the product with a filter's spectrum, and the first one back."""

    def plain(re, im, n, filter_re, filter_im, first):
        width = lanes(re.dtype)
        x = (re.ravel().astype(complex) + 1j * im.ravel())[: n * width].reshape(-1, radix, width)
        part = slice(first, first + n * width)
        taps = (filter_re[part].astype(complex) + 1j * filter_im[part]).reshape(x.shape)
        x = np.fft.ifft(np.fft.fft(x, axis=1) * taps, axis=1).ravel() * radix
        re.reshape(-1)[: x.size], im.reshape(-1)[: x.size] = x.real, x.imag

    def typed(typing_context, re, im, n, filter_re, filter_im, first):
        i = types.intp

        def codegen(context, b, signature, values):
            e = _Emitter(context, b, signature.args[0])
            re, im, filter_re, filter_im = _data(context, b, signature, values, 0, 1, 3, 4)
            with cgutils.for_range_slice(b, e.number(0), values[2], e.number(radix)) as (point, _):
                start = b.mul(point, e.number(e.lanes))
                places = [b.add(start, e.number(q * e.lanes)) for q in range(radix)]
                x = e.transform([e.load((re, im), at) for at in places], -1)
                taps = [e.load((filter_re, filter_im), b.add(at, values[5])) for at in places]
                x = e.transform(list(map(e.multiply, x, taps)), 1)
                for value, at in zip(x, places, strict=True):
                    e.store(value, (re, im), at)
            return context.get_dummy_value()

        return types.void(re, im, i, filter_re, filter_im, i), codegen

    return plain if config.DISABLE_JIT else intrinsic(typed)


turn_4, turn_8 = map(_turning_point, (4, 8))


@register_jitable
def forward(re, im, start, stride, n, radices, table, count, panel):
    """Transform a vector of columns into a panel, by the first ``count`` passes.

    Parameters
    ----------
    re, im : (rows, cols) arrays
        C order; the columns begin at the flat index ``start``, their rows ``stride`` apart.
    n : int
        Points.
    radices, table : arrays
        Of `passes.passes`.
    panel : (2, >= n, lanes) array
        Overwritten.

    Notes
    -----
    Cost: about ``5 n log2(n)`` operations on vectors.
    """
    width = panel.shape[2]
    to_re, to_im = panel[0], panel[1]
    size, first = n, 0
    for number in range(count):
        radix = radices[number]
        if size == 8:
            _last_8(re, im, start, stride, to_re, to_im, 0, width, n, size, table, 0)
        elif size == 4:
            _last_4(re, im, start, stride, to_re, to_im, 0, width, n, size, table, 0)
        elif radix == 8:
            _forward_8(re, im, start, stride, to_re, to_im, 0, width, n, size, table, first)
        elif radix == 6:
            _forward_6(re, im, start, stride, to_re, to_im, 0, width, n, size, table, first)
        else:
            _forward_4(re, im, start, stride, to_re, to_im, 0, width, n, size, table, first)
        size //= radix
        first += 2 * (radix - 1) * size
        re, im, start, stride = to_re, to_im, 0, width


@register_jitable
def back(panel, n, radices, table, count, re, im, start, stride):
    """Take the first ``count`` passes back, from a panel into a vector of columns.

    Parameters
    ----------
    panel : (2, >= n, lanes) array
        Read and overwritten.
    n : int
        Points.
    radices, table : arrays
        Of `passes.passes`.
    re, im : (rows, cols) arrays
        As in `forward`; overwritten.

    Notes
    -----
    Cost: that of `forward`.
    """
    width = panel.shape[2]
    of_re, of_im = panel[0], panel[1]
    size, first = n, 0
    for number in range(count):
        size //= radices[number]
        first += 2 * (radices[number] - 1) * size
    for number in range(count - 1, -1, -1):
        radix = radices[number]
        first -= 2 * (radix - 1) * size
        size *= radix
        last = number == 0
        to_re, to_im = (re, im) if last else (of_re, of_im)
        to, step = (start, stride) if last else (0, width)
        if radix == 8:
            _back_8(of_re, of_im, 0, width, to_re, to_im, to, step, n, size, table, first)
        elif radix == 6:
            _back_6(of_re, of_im, 0, width, to_re, to_im, to, step, n, size, table, first)
        else:
            _back_4(of_re, of_im, 0, width, to_re, to_im, to, step, n, size, table, first)
