/* Star-convex polygons as rows of bits, relative to their centres; see _rows.h for CLONES. */
#ifndef NUCLIX_STARS_H
#define NUCLIX_STARS_H

#include "_rows.h"

enum { WORD = 64 };

/* Edges of one polygon: edge k crosses `count[k]` rows from `first[k]` on, at start, start + slope, ... */
typedef struct {
    double *y; /* corners, the first again at the end */
    double *x;
    double *above; /* first row at or below each corner */
    double *start;
    double *slope;
    int32_t *first;
    int32_t *count;
    int32_t *cuts; /* where it crosses the first row: columns from the left of the raster; then the second, for all edges */
} StarEdges;

/* The pixels of one polygon: `rows` rows of `words` words from row `top` on; bit 0 is column -`reach`. */
typedef struct {
    uint64_t *bits;
    ptrdiff_t room; /* words that `bits` has memory for */
    int32_t top;
    int32_t rows;
    int32_t words;
    int32_t reach;
    int64_t area;
} StarRaster;

/* Smallest integer at or above x, whose size fits 31 bits. */
ROW int32_t ceiling(double x) {
    int32_t cut = (int32_t)x;
    return cut + (x > cut);
}

CLONES ROW float longest(int rays, const float *RESTRICT distances) {
    float most = distances[0];
    for (int k = 1; k < rays; k++)
        most = distances[k] > most ? distances[k] : most;
    return most;
}

/* An edge that crosses no row gets any finite numbers and a count of 0. */
CLONES ROW void find_edges(int rays, const float *RESTRICT distances, const double *RESTRICT sines,
                           const double *RESTRICT cosines, int32_t reach, const StarEdges *edges) {
    double *RESTRICT y = edges->y, *RESTRICT x = edges->x, *RESTRICT above = edges->above;
    double *RESTRICT start = edges->start, *RESTRICT slope = edges->slope;
    int32_t *RESTRICT first = edges->first, *RESTRICT count = edges->count;
    int32_t *RESTRICT one = edges->cuts, *RESTRICT two = edges->cuts + rays;
    for (int k = 0; k < rays; k++) {
        y[k] = distances[k] * sines[k];
        x[k] = distances[k] * cosines[k];
        above[k] = ceiling(y[k]);
    }
    y[rays] = y[0];
    x[rays] = x[0];
    above[rays] = above[0];
#pragma GCC ivdep /* the arrays are apart, which GCC does not take from their structure */
    for (int k = 0; k < rays; k++) {
        double y0 = y[k], y1 = y[k + 1], x0 = x[k], x1 = x[k + 1], a0 = above[k], a1 = above[k + 1];
        double divisor = y1 - y0 + 2.0 * (a0 == a1); /* |y1 - y0| < 1 between two rows: nothing becomes infinite */
        double top = y0 < y1 ? y0 : y1, row = a0 < a1 ? a0 : a1;
        double left = y0 > y1 ? x1 : x0;
        double fall = (x1 - x0) / divisor;
        slope[k] = fall;
        start[k] = left + (row - top) * fall;
        first[k] = (int32_t)row;
        count[k] = (int32_t)__builtin_fabs(a1 - a0);
    }
    for (int k = 0; k < rays; k++) {
        one[k] = ceiling(start[k]) + reach;
        two[k] = ceiling(start[k] + slope[k]) + reach;
    }
}

/* Flip the bits of a row of `words` words from column `cut` on. */
ROW void flip_from(uint64_t *row, int32_t words, int32_t cut) {
    int32_t word = cut / WORD;
    row[word] ^= ~(uint64_t)0 << cut % WORD;
    for (word++; word < words; word++)
        row[word] ^= ~(uint64_t)0;
}

/* Flip the crossings of edges in rows of one word: the first two of each, which are all that most have, without a branch. */
ROW void flip_narrow(int rays, const StarEdges *edges, int32_t reach, int32_t top, uint64_t *bits) {
    const int32_t *one = edges->cuts, *two = edges->cuts + rays;
    for (int k = 0; k < rays; k++) {
        int32_t count = edges->count[k];
        uint64_t *row = bits + (edges->first[k] - top);
        row[0] ^= (uint64_t)-(int64_t)(count > 0) << (one[k] & (WORD - 1));
        row[1] ^= (uint64_t)-(int64_t)(count > 1) << (two[k] & (WORD - 1));
        for (int32_t j = 2; j < count; j++)
            flip_from(row + j, 1, ceiling(edges->start[k] + j * edges->slope[k]) + reach);
    }
}

ROW void flip_wide(int rays, const StarEdges *edges, int32_t reach, int32_t top, int32_t words, uint64_t *bits) {
    for (int k = 0; k < rays; k++) {
        uint64_t *row = bits + (ptrdiff_t)(edges->first[k] - top) * words;
        for (int32_t j = 0; j < edges->count[k]; j++)
            flip_from(row + j * words, words, ceiling(edges->start[k] + j * edges->slope[k]) + reach);
    }
}

/* Words that the raster of a polygon needs. */
ROW ptrdiff_t raster_room(int32_t reach) { return (ptrdiff_t)(2 * reach + 3) * (2 * reach / WORD + 1); }

/* Fill in the raster of a polygon, whose memory suffices, from its edges; rows behind the last are written to. */
CLONES ROW void fill_raster(int rays, const StarEdges *edges, int32_t reach, StarRaster *raster) {
    double low = edges->above[0], high = edges->above[0];
    int64_t area = 0;
    for (int k = 1; k < rays; k++) {
        low = edges->above[k] < low ? edges->above[k] : low;
        high = edges->above[k] > high ? edges->above[k] : high;
    }
    uint64_t *bits = raster->bits;
    int32_t top = (int32_t)low, rows = (int32_t)high - top, words = 2 * reach / WORD + 1;
    memset(bits, 0, (size_t)(rows + 2) * words * sizeof(uint64_t));
    if (words == 1)
        flip_narrow(rays, edges, reach, top, bits);
    else
        flip_wide(rays, edges, reach, top, words, bits);
    for (ptrdiff_t k = 0; k < (ptrdiff_t)rows * words; k++)
        area += __builtin_popcountll(bits[k]);
    raster->top = top;
    raster->rows = rows;
    raster->words = words;
    raster->reach = reach;
    raster->area = area;
}

/* Word `k` of a row of `words` words, shifted up by `shift` bits (down if negative); zeros beyond the row. */
ROW uint64_t shifted_word(const uint64_t *row, int32_t words, int32_t k, int32_t shift) {
    int32_t back = shift >= 0 ? shift / WORD : -((-shift + WORD - 1) / WORD), bit = shift - back * WORD;
    int32_t at = k - back;
    uint64_t word = at >= 0 && at < words ? row[at] << bit : 0;
    if (bit && at - 1 >= 0 && at - 1 < words)
        word |= row[at - 1] >> (WORD - bit);
    return word;
}

/* Count the pixels that two polygons share; the second's centre lies (row, col) from the first's. */
CLONES ROW int64_t shared_pixels(const StarRaster *one, const StarRaster *two, int32_t row, int32_t col) {
    int32_t shift = col - two->reach + one->reach, top = two->top + row, end = top + two->rows;
    int64_t total = 0;
    top = top > one->top ? top : one->top;
    end = end < one->top + one->rows ? end : one->top + one->rows;
    const uint64_t *upper = one->bits + (ptrdiff_t)(top - one->top) * one->words;
    const uint64_t *lower = two->bits + (ptrdiff_t)(top - two->top - row) * two->words;
    if (one->words == 1 && two->words == 1) {
        if (shift <= -WORD || shift >= WORD)
            return 0;
        int32_t up = shift > 0 ? shift : 0, down = shift < 0 ? -shift : 0;
        for (int32_t k = 0; k < end - top; k++)
            total += __builtin_popcountll(upper[k] & (lower[k] << up >> down));
        return total;
    }
    for (; top < end; top++, upper += one->words, lower += two->words)
        for (int32_t k = 0; k < one->words; k++)
            total += __builtin_popcountll(upper[k] & shifted_word(lower, two->words, k, shift));
    return total;
}

/* Set the bits of a polygon whose centre is (row, col) in an image of `height` rows of `pitch` words.
 *
 * Bit 0 of a row is column -margin; the margin is at least every reach, on both sides.
 */
CLONES ROW void add_raster(const StarRaster *raster, int64_t row, int64_t col, int64_t margin, uint64_t *image,
                           int64_t height, int64_t pitch) {
    int64_t at = col + margin - raster->reach;
    int64_t first = row + raster->top, last = first + raster->rows;
    int32_t bit = (int32_t)(at % WORD);
    int64_t skipped = first < 0 ? -first : 0;
    const uint64_t *bits = raster->bits + skipped * raster->words;
    last = last < height ? last : height;
    for (first += skipped; first < last; first++, bits += raster->words) {
        uint64_t *target = image + first * pitch + at / WORD;
        for (int32_t k = 0; k < raster->words; k++) {
            target[k] |= bits[k] << bit;
            target[k + 1] |= bits[k] >> 1 >> (WORD - 1 - bit);
        }
    }
}

/* out[c] = bit c of a row of bits that begins `margin` columns before it */
ROW void unpack_bits(int64_t width, int64_t margin, const uint64_t *bits, uint8_t *out) {
    for (int64_t c = 0; c < width; c++)
        out[c] = bits[(c + margin) / WORD] >> (c + margin) % WORD & 1;
}

#endif
