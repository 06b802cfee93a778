"""Many small systems of normal equations, gathered and solved one after the other.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def gather_stack(x, answers, kernel_shape, line, grams):
    r"""Gather the products of all shifts of many small images, and with what is to explain them.

    Parameters
    ----------
    x : (n, height + p - 1, width + q - 1) float64 array
        The sources, C order.
    answers : (n, k, height, width) float64 array
        Polynomials of the background, then the result, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    line : (>= width + q - 1,) float64 array
        Overwritten.
    grams : (n, m, m) float64 array
        With ``m = p * q + k``; overwritten above the diagonal and on it.

    Notes
    -----
    .. math:: H_{a,a+d} = \sum_t x_{t+a} x_{t+a+d}

    For every displacement ``d`` the products of rows are summed down a window once, and from one
    shift ``a`` to the next what leaves is subtracted and what enters is added.

    Cost: ``2pq - p - q + 1`` multiply-adds a pixel for the shifts, and ``p * q`` for every answer.
    """
    p, q = kernel_shape
    n_answers, height, width = answers.shape[1], answers.shape[2], answers.shape[3]
    taps = p * q
    for s in range(x.shape[0]):
        image, gram = x[s], grams[s]
        for down in range(p):
            for across in range(0 if down == 0 else 1 - q, q):
                first, shifts = max(0, -across), q - abs(across)
                n = width + shifts - 1
                sums = line[:n]
                sums[:] = 0.0
                for r in range(height):
                    one = image[r][first : first + n]
                    other = image[r + down][first + across : first + across + n]
                    for c in range(n):
                        sums[c] += one[c] * other[c]
                for i in range(p - down):
                    if i > 0:
                        one = image[i - 1][first : first + n]
                        other = image[i - 1 + down][first + across : first + across + n]
                        enters = image[i - 1 + height][first : first + n]
                        beside = image[i - 1 + height + down][first + across : first + across + n]
                        for c in range(n):
                            sums[c] += enters[c] * beside[c] - one[c] * other[c]
                    total = 0.0
                    for c in range(width):
                        total += sums[c]
                    a = i * q + first
                    b = (i + down) * q + first + across
                    gram[a, b] = total
                    for j in range(1, shifts):
                        total += sums[width - 1 + j] - sums[j - 1]
                        gram[a + j, b + j] = total
        for k in range(n_answers):
            answer = answers[s, k]
            for i in range(p):
                for j in range(q):
                    total = 0.0
                    for r in range(height):
                        row, pixels = answer[r], image[r + i][j : j + width]
                        for c in range(width):
                            total += row[c] * pixels[c]
                    gram[i * q + j, taps + k] = total
            for other in range(k, n_answers):
                total = 0.0
                for r in range(height):
                    row, pixels = answer[r], answers[s, other, r]
                    for c in range(width):
                        total += row[c] * pixels[c]
                gram[taps + k, taps + other] = total


@_loop
def solve_stack(grams, taps, terms, ridge, work, sums, answers, errors, numbers):
    r"""Solve a stack of normal equations by Cholesky factors, with what these tell.

    Parameters
    ----------
    grams : (n, >= m + 1, >= m + 1) float64 array
        With ``m = taps + terms``: the upper triangle of the products of all columns of a design
        matrix and of the result, which comes last; C order.
    taps, terms : int
        Columns of the kernel, then of the background.
    ridge : float
        Added to the diagonal of the taps.
    work : (2, m, m) float64 array
        Overwritten.
    sums : (2, m) float64 array
        Overwritten.
    answers : (n, m) float64 array
        Overwritten with the least-squares solutions, by column; zeros where there is none.
    errors : (n, taps) float64 array
        Overwritten with the diagonal of the inverse.
    numbers : (n, 3) float64 array
        Overwritten with the energy of the residual, the condition number in the 1-norm (infinite
        where a pivot is not positive), and the energy of the result.

    Notes
    -----
    .. math:: L L^T = G + \\lambda I, \\quad k = L^{-T} L^{-1} m, \\quad
              \\|y - X k\\|^2 = y^T y - m^T k - \\lambda \\|k\\|^2

    Cost: ``m**3`` multiply-adds a system.
    """
    m = taps + terms
    lower, inverse = work[0], work[1]
    for s in range(grams.shape[0]):
        gram, k, found = grams[s], answers[s], numbers[s]
        found[2] = gram[m, m]
        norm, regular = 0.0, True
        for i in range(m):
            total = 0.0
            for j in range(m):
                value = gram[min(i, j), max(i, j)]
                if i == j and i < taps:
                    value += ridge
                total += abs(value)
            norm = max(norm, total)
        for i in range(m):
            row = lower[i]
            for j in range(i + 1):
                value = gram[j, i]
                if i == j and i < taps:
                    value += ridge
                other = lower[j]
                for c in range(j):
                    value -= row[c] * other[c]
                if i == j:
                    regular = regular and value > 0.0
                    row[i] = value**0.5 if regular else 1.0
                else:
                    row[j] = value / other[j]
        if not regular:
            k[:] = 0.0
            errors[s, :] = 0.0
            found[0], found[1] = gram[m, m], float("inf")
            continue
        # Columns of the inverse of the factor, each a row, then the whole inverse.
        for j in range(m):
            column = inverse[j]
            for i in range(j, m):
                row, value = lower[i], 1.0 if i == j else 0.0
                for c in range(j, i):
                    value -= row[c] * column[c]
                column[i] = value / row[i]
        sums[:] = 0.0
        for i in range(m):
            own = inverse[i]
            for j in range(i + 1):
                other, value = inverse[j], 0.0
                for c in range(i, m):
                    value += own[c] * other[c]
                sums[0, i] += abs(value)
                sums[1, i] += value * gram[j, m]
                if i == j:
                    if i < taps:
                        errors[s, i] = value
                else:
                    sums[0, j] += abs(value)
                    sums[1, j] += value * gram[i, m]
        largest = 0.0
        for i in range(m):
            largest = max(largest, sums[0, i])
            k[i] = sums[1, i]
        energy = gram[m, m]
        for i in range(m):
            energy -= k[i] * gram[i, m]
            if i < taps:
                energy -= ridge * k[i] * k[i]
        found[0], found[1] = energy, norm * largest


@_loop
def mix_stack(weights, grams, out):
    r"""Add mixtures of symmetric matrices to accumulators.

    Parameters
    ----------
    weights : (n, k) float64 array
        C order.
    grams : (n, m, m) float64 array
        Read above the diagonal and on it, C order.
    out : (k, m, m) float64 array
        Updated in place above the diagonal and on it, C order.

    Notes
    -----
    .. math:: \mathrm{out}_k \mathrel{+}= \sum_n w_{nk} G_n

    Cost: ``n * k`` multiply-adds an entry, fewer where weights are 0.
    """
    n, m = grams.shape[0], grams.shape[1]
    for i in range(m):
        for k in range(weights.shape[1]):
            total, own = out[k, i][i:], weights[:, k]
            for start in range(0, n - 3, 4):
                a, b, c, d = own[start], own[start + 1], own[start + 2], own[start + 3]
                if a != 0.0 or b != 0.0 or c != 0.0 or d != 0.0:
                    one, two = grams[start, i][i:], grams[start + 1, i][i:]
                    three, four = grams[start + 2, i][i:], grams[start + 3, i][i:]
                    for j in range(m - i):
                        total[j] += a * one[j] + b * two[j] + (c * three[j] + d * four[j])
            for last in range(n - n % 4, n):
                weight, row = own[last], grams[last, i][i:]
                for j in range(m - i):
                    total[j] += weight * row[j]
