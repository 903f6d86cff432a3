# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Statistics over the labels of an image, run by run. Called through nuclix.ext.label_sums and stains, which validate.

Input: labels, and an image of the same height and width: real numbers, or uint8 RGB pixels with what each level of each channel
adds to each stain. Output, for each label in order of first pixel: a sum, or STATISTICS numbers for each stain.

A label's numbers depend on its own pixels alone: sums are double precision in four lanes, counted from the begin of a run or of
the label. For stains, one scan over the runs of labels counts each label's pixels; a second writes their stains (float32, as
QuPath keeps them) one behind the other, and the statistics are those of each label's stretch.
"""

import numpy as np

include "_label_runs.pxi"

from libc.math cimport sqrt

ctypedef fused value_t:
    float
    double


cdef inline double run_sum(const value_t *values, int64_t n) noexcept nogil:
    """Add up a run in four lanes, counted from its begin: faster than one after the other, and the same wherever it lies."""
    cdef double a = 0, b = 0, c = 0, d = 0
    cdef int64_t i = 0
    while i + 4 <= n:
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
        i += 4
    while i < n:
        a += values[i]
        i += 1
    return (a + b) + (c + d)


cdef int64_t add_up(const label_t *labels, int64_t stride, const value_t *values, int64_t value_stride,
                    int64_t height, int64_t width, double **sums) noexcept nogil:
    """Sum `values` over each label; return the number of labels, or minus a status."""
    cdef Index index
    cdef int64_t row, k, n, number, room = 0, status = OK
    cdef Scan lines
    cdef int ready = new_scan(&lines, width)
    cdef int32_t *cols = <int32_t *> malloc((2 * width + 2) * sizeof(int32_t))
    cdef int64_t *run_labels = <int64_t *> malloc((width + 1) * sizeof(int64_t))
    memset(&index, 0, sizeof(Index))
    if ready != OK or cols == NULL or run_labels == NULL:
        status = NO_MEMORY
        height = 0
    for row in range(height):
        n = row_runs(labels + row * stride, width, &lines, cols, run_labels)
        for k in range(n):
            number = number_of(&index, run_labels[k])
            if number < 0 or (number >= room and resize(<void **> sums, 2 * (number + 512) * sizeof(double))):
                status = NO_MEMORY
                break
            if number >= room:
                memset(sums[0] + room, 0, (2 * (number + 512) - room) * sizeof(double))
                room = 2 * (number + 512)
            sums[0][number] += run_sum(values + row * value_stride + cols[2 * k], cols[2 * k + 1] - cols[2 * k])
        if status != OK:
            break
    free_scan(&lines)
    free(cols)
    free(run_labels)
    free(index.keys)
    free(index.numbers)
    return index.count if status == OK else -status


def sums(const label_t[:, :] labels, const value_t[:, :] values):
    """Return the float64 sum of `values` over each label, in order of first pixel. Rows of both are contiguous."""
    cdef int64_t height = labels.shape[0], width = labels.shape[1], count
    cdef int64_t stride = labels.strides[0] // <int64_t> sizeof(label_t)
    cdef int64_t value_stride = values.strides[0] // <int64_t> sizeof(value_t)
    cdef double *totals = NULL
    if not height or not width:
        return np.zeros(0)
    try:
        with nogil:
            count = add_up(&labels[0, 0], stride, &values[0, 0], value_stride, height, width, &totals)
        if count < 0:
            raise MemoryError("no memory for the sums of labels")
        return np.array(<double[:count]> totals) if count else np.zeros(0)
    finally:
        free(totals)


cdef enum:
    STAINS = 2
    LEVELS = 256
    BINS = 256              # of the histogram in which a median is sought
    CHUNK = 512             # values whose bins are found at once
    LANES = 4               # sums that take turns

cdef enum:
    MEAN, MEDIAN, MIN, MAX, STD, STATISTICS

cdef struct Pixels:
    const uint8_t *data
    int64_t row_stride
    int64_t col_stride
    int64_t channel_stride

cdef struct Stretches:
    Index index             # of labels
    int64_t capacity
    int64_t *counts         # (capacity,) pixels of each label; later where its next pixel is written


cdef int count_pixels(const label_t *labels, int64_t stride, int64_t height, int64_t width, Scan *lines, int32_t *cols,
                      int64_t *run_labels, Stretches *out) noexcept nogil:
    cdef int64_t row, k, n, number, capacity
    for row in range(height):
        n = row_runs(labels + row * stride, width, lines, cols, run_labels)
        for k in range(n):
            number = number_of(&out.index, run_labels[k])
            if number < 0:
                return NO_MEMORY
            if number >= out.capacity:
                capacity = 2 * (number + 512)
                if resize(<void **> &out.counts, capacity * sizeof(int64_t)):
                    return NO_MEMORY
                memset(out.counts + out.capacity, 0, (capacity - out.capacity) * sizeof(int64_t))
                out.capacity = capacity
            out.counts[number] += cols[2 * k + 1] - cols[2 * k]
    return OK


cdef void write_stains(const label_t *labels, int64_t stride, int64_t height, int64_t width, Scan *lines, int32_t *cols,
                       int64_t *run_labels, const Pixels *pixels, const double *table, Stretches *out, float **stains) noexcept nogil:
    """Write each label's stains to its stretch; `table` is (3, LEVELS, STAINS)."""
    cdef int64_t row, k, n, c, number, at
    cdef const uint8_t *pixel
    cdef const double *red
    cdef const double *green
    cdef const double *blue
    for row in range(height):
        n = row_runs(labels + row * stride, width, lines, cols, run_labels)
        for k in range(n):
            number = number_of(&out.index, run_labels[k])
            at = out.counts[number]
            pixel = pixels.data + row * pixels.row_stride + cols[2 * k] * pixels.col_stride
            for c in range(cols[2 * k], cols[2 * k + 1]):
                red = table + STAINS * pixel[0]
                green = table + STAINS * (LEVELS + pixel[pixels.channel_stride])
                blue = table + STAINS * (2 * LEVELS + pixel[2 * pixels.channel_stride])
                stains[0][at] = <float> (red[0] + green[0] + blue[0])
                stains[1][at] = <float> (red[1] + green[1] + blue[1])
                pixel += pixels.col_stride
                at += 1
            out.counts[number] = at


cdef inline void swap(float *a, float *b) noexcept nogil:
    cdef float value = a[0]
    a[0] = b[0]
    b[0] = value


cdef float select(float *values, int64_t n, int64_t k) noexcept nogil:
    """Return the k-th smallest of n values (Hoare's selection); afterwards none before it is greater, none behind it less."""
    cdef int64_t low = 0, high = n - 1, i, j
    cdef float pivot
    while low < high:
        i = low + (high - low) // 2     # the median of three becomes the pivot
        if values[i] < values[low]:
            swap(values + i, values + low)
        if values[high] < values[low]:
            swap(values + high, values + low)
        if values[high] < values[i]:
            swap(values + high, values + i)
        pivot = values[i]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                swap(values + i, values + j)
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


cdef inline int64_t find_bins(const float *values, int64_t n, float low, float scale, int32_t *bins) noexcept nogil:
    """Fill `bins` with the bins of at most CHUNK of n values; return how many."""
    cdef int64_t i
    n = min(n, CHUNK)
    for i in range(n):
        bins[i] = <int32_t> ((values[i] - low) * scale)
    return n


cdef double median(float *values, int64_t n, float low, float high) noexcept nogil:
    """Return the median, of an even number the mean of the two in the middle; overwrites the values, low <= them <= high.

    A histogram leaves only the values of the bins that hold the two; a value's bin never falls as it rises, so this is exact.
    """
    cdef int32_t counts[2 * BINS]       # two tables take turns: neighbours are often in one bin
    cdef int32_t bins[CHUNK]
    cdef int64_t i, done, size, below = 0, kept = 0, first = (n - 1) // 2, second = n // 2
    cdef int begin = 0, end, bin
    cdef float scale, lower, upper
    if not high > low:
        return low
    scale = (BINS - 1) / (high - low)
    memset(counts, 0, sizeof(counts))
    done = 0
    while done < n:
        size = find_bins(values + done, n - done, low, scale, bins)
        for i in range(size // 2):
            counts[bins[2 * i]] += 1
            counts[bins[2 * i + 1] + BINS] += 1
        if size & 1:
            counts[bins[size - 1]] += 1
        done += size
    for bin in range(BINS):
        counts[bin] += counts[BINS + bin]
    while below + counts[begin] <= first:
        below += counts[begin]
        begin += 1
    end = begin
    kept = below + counts[begin]
    while kept <= second:
        end += 1
        kept += counts[end]
    kept = 0
    done = 0
    while done < n:
        size = find_bins(values + done, n - done, low, scale, bins)
        for i in range(size):
            values[kept] = values[done + i]     # written whether or not it is kept: what is not counted is overwritten
            kept += begin <= bins[i] and bins[i] <= end
        done += size
    upper = select(values, kept, second - below)
    if first == second:
        return upper
    lower = values[0]
    for i in range(1, second - below):
        lower = values[i] if values[i] > lower else lower
    return 0.5 * (<double> lower + <double> upper)


cdef void summarise(float *values, int64_t n, double *out) noexcept nogil:
    """Fill the STATISTICS of a stretch; the standard deviation is that of a sample (n - 1), 0 for one pixel."""
    cdef double sums[LANES]
    cdef double squares[LANES]
    cdef float lows[LANES]
    cdef float highs[LANES]
    cdef double origin = values[0], value, mean
    cdef float low, high
    cdef int64_t i, whole = n - n % LANES
    cdef int k
    memset(sums, 0, sizeof(sums))
    memset(squares, 0, sizeof(squares))
    for k in range(LANES):
        lows[k] = highs[k] = values[0]
    i = 0
    while i < whole:
        for k in range(LANES):
            value = values[i + k] - origin      # small numbers: their squares keep their digits
            sums[k] += value
            squares[k] += value * value
        for k in range(LANES):
            lows[k] = values[i + k] if values[i + k] < lows[k] else lows[k]
            highs[k] = values[i + k] if values[i + k] > highs[k] else highs[k]
        i += LANES
    for k in range(<int> (n - whole)):
        value = values[whole + k] - origin
        sums[k] += value
        squares[k] += value * value
        lows[k] = min(lows[k], values[whole + k])
        highs[k] = max(highs[k], values[whole + k])
    low = min(min(lows[0], lows[1]), min(lows[2], lows[3]))
    high = max(max(highs[0], highs[1]), max(highs[2], highs[3]))
    mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / n
    value = ((squares[0] + squares[1]) + (squares[2] + squares[3])) - n * mean * mean
    mean += origin
    out[MEAN], out[MIN], out[MAX] = mean, low, high
    out[STD] = sqrt(value / (n - 1)) if n > 1 and value > 0 else 0
    out[MEDIAN] = median(values, n, low, high)


cdef int64_t to_offsets(Stretches *out) noexcept nogil:
    """Turn counts into the places where stretches begin; return the number of pixels."""
    cdef int64_t k, count, total = 0
    for k in range(out.index.count):
        count = out.counts[k]
        out.counts[k] = total
        total += count
    return total


cdef int new_stains(float **stains, int64_t pixels) noexcept nogil:
    cdef int k
    for k in range(STAINS):
        stains[k] = <float *> malloc(pixels * sizeof(float) + 1)
        if stains[k] == NULL:
            return NO_MEMORY
    return OK


cdef void summarise_all(const Stretches *found, float **stains, double[:, :, ::1] result) noexcept nogil:
    cdef int64_t number, begin = 0
    cdef int k
    for number in range(found.index.count):
        for k in range(STAINS):
            summarise(stains[k] + begin, found.counts[number] - begin, &result[number, k, 0])
        begin = found.counts[number]


def stain_statistics(const label_t[:, :] labels, const uint8_t[:, :, :] pixels, const double[:, :, ::1] table):
    """Return the (N, STAINS, STATISTICS) of each label. Rows of `labels` are contiguous; `table` is (3, LEVELS, STAINS)."""
    cdef int64_t height = labels.shape[0], width = labels.shape[1]
    cdef int64_t stride = labels.strides[0] // <int64_t> sizeof(label_t)
    cdef int32_t *cols = NULL
    cdef int64_t *run_labels = NULL
    cdef float *stains[STAINS]
    cdef int status = NO_MEMORY
    cdef Stretches found
    cdef Scan lines
    cdef Pixels source
    if not height or not width:
        return np.zeros((0, STAINS, STATISTICS))
    source = Pixels(&pixels[0, 0, 0], pixels.strides[0], pixels.strides[1], pixels.strides[2])
    memset(&found, 0, sizeof(Stretches))
    memset(&lines, 0, sizeof(Scan))
    memset(stains, 0, sizeof(stains))
    try:
        with nogil:
            cols = <int32_t *> malloc((2 * width + 2) * sizeof(int32_t))
            run_labels = <int64_t *> malloc((width + 1) * sizeof(int64_t))
            if new_scan(&lines, width) == OK and cols != NULL and run_labels != NULL:
                status = count_pixels(&labels[0, 0], stride, height, width, &lines, cols, run_labels, &found)
            if status == OK:
                status = new_stains(stains, to_offsets(&found))
            if status == OK:
                write_stains(&labels[0, 0], stride, height, width, &lines, cols, run_labels, &source, &table[0, 0, 0],
                             &found, stains)
        if status != OK:
            raise MemoryError("no memory for the statistics of stains")
        result = np.empty((found.index.count, STAINS, STATISTICS))
        fill(&found, stains, result)
        return result
    finally:
        free_scan(&lines)
        free(cols)
        free(run_labels)
        free(stains[0])
        free(stains[1])
        free(found.counts)
        free(found.index.keys)
        free(found.index.numbers)


cdef fill(const Stretches *found, float **stains, double[:, :, ::1] result):
    with nogil:
        summarise_all(found, stains, result)
