/* A priority queue of ranks, each of which is in it once at most, and the flood that it leads. */
#ifndef NUCLIX_RANK_QUEUE_H
#define NUCLIX_RANK_QUEUE_H

#include "_rows.h"

enum { RANK_LEVELS = 6 }; /* of 6 bits each: more than the 31 bits of a rank */

typedef struct {
    uint64_t *levels[RANK_LEVELS]; /* bit r of level 0: rank r; bit w of level k + 1: word w of level k is not 0 */
    int depth;                     /* levels in use; the last is one word */
} RankQueue;

/* Put a rank into the queue if `wanted` is 1, not if it is 0. */
ROW void push_rank(const RankQueue *queue, uint32_t rank, uint64_t wanted, int depth) {
    for (int k = 0; k < depth; k++, rank >>= 6)
        queue->levels[k][rank >> 6] |= wanted << (rank & 63);
}

/* Take the least rank out of a queue that is not empty. */
ROW uint32_t pop_rank(const RankQueue *queue, int depth) {
    uint32_t rank = 0;
    uint64_t gone = 1;
    for (int k = depth - 1; k >= 0; k--)
        rank = rank << 6 | (uint32_t)lowest_bit(queue->levels[k][rank]);
    for (int k = 0; k < depth; k++) {
        uint64_t *word = &queue->levels[k][rank >> (6 * k) >> 6];
        *word &= ~(gone << (rank >> (6 * k) & 63));
        gone &= *word == 0;
    }
    return rank;
}

/* Whether a pixel around a place has no label yet: 1 or 0. */
ROW uint32_t is_open(const int32_t *at, ptrdiff_t pitch, int neighbours) {
    int32_t all = at[-1] | at[1] | at[-pitch] | at[pitch];
    if (neighbours == 8)
        all |= at[-pitch - 1] | at[-pitch + 1] | at[pitch - 1] | at[pitch + 1];
    return (uint32_t)all >> 31;
}

ROW void flood_levels(RankQueue queue, const uint64_t *RESTRICT items, int32_t *RESTRICT labels, ptrdiff_t pitch,
                      int neighbours, int depth) {
    const ptrdiff_t steps[8] = {-1, 1, -pitch, pitch, -1 - pitch, 1 - pitch, pitch - 1, pitch + 1};
    while (*queue.levels[depth - 1]) {
        int32_t *place = labels + (uint32_t)items[pop_rank(&queue, depth)], label = *place;
        for (int k = 0; k < neighbours; k++) {
            int32_t *near = place + steps[k];
            if (*near < 0) {
                push_rank(&queue, (uint32_t)~*near, is_open(near, pitch, neighbours), depth);
                *near = label;
            }
        }
    }
}

/* Flood what the queue reaches: `labels` holds -1 - rank where there is no label yet, `items` the places of the ranks in
 * their lower 32 bits. The usual cases have loops of their own. */
ROW void flood_ranks(const RankQueue *queue, const uint64_t *items, int32_t *labels, ptrdiff_t pitch, int neighbours) {
    if (neighbours == 8)
        flood_levels(*queue, items, labels, pitch, 8, queue->depth);
    else if (queue->depth == 1)
        flood_levels(*queue, items, labels, pitch, 4, 1);
    else if (queue->depth == 2)
        flood_levels(*queue, items, labels, pitch, 4, 2);
    else
        flood_levels(*queue, items, labels, pitch, 4, queue->depth);
}

/* Items, as of list_pixels, of those of n pixels that have no mark (a negative one) or a neighbour without; return how
 * many. `flip` is 0 to have the highest first, and all ones to have the lowest first. */
ROW ptrdiff_t list_near_unmarked(ptrdiff_t n, const float *RESTRICT heights, uint32_t flip, const int32_t *RESTRICT marks,
                                 ptrdiff_t pitch, int neighbours, uint32_t place, uint64_t *RESTRICT items,
                                 uint32_t *RESTRICT low, uint32_t *RESTRICT high) {
    uint32_t least = *low, most = *high;
    ptrdiff_t count = 0;
    for (ptrdiff_t c = 0; c < n; c++) {
        uint32_t key = key_of(heights[c]) ^ flip, own = (uint32_t)marks[c] >> 31 | is_open(marks + c, pitch, neighbours);
        uint32_t last = key & (0 - own), first = key | (own - 1);
        items[count] = (uint64_t)key << 32 | (place + (uint32_t)c);
        least = first < least ? first : least;
        most = last > most ? last : most;
        count += own;
    }
    *low = least;
    *high = most;
    return count;
}

/* Set labels outside to 0. */
CLONES ROW void clear_outside(ptrdiff_t n, const uint8_t *RESTRICT inside, int32_t *RESTRICT labels) {
    for (ptrdiff_t c = 0; c < n; c++)
        labels[c] = inside[c] ? labels[c] : 0;
}

#endif
