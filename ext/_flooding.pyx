# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.maxima, watershed and dynamics; preconditions are checked there.

Rows become runs, runs become clumps (union-find), and every clump is flooded as soon as it is complete: its pixels
are sorted by radix and joined from high to low by union-find of basins. Time is linear in the pixels but for the
inverse Ackermann function; memory other than image and labels holds the open clumps only.
"""

from libc.math cimport NAN

include "_mask_runs.pxi"
include "_basins.pxi"
include "_clumps.pxi"


cdef void release(Work* work) noexcept nogil:
    free(work.runs.items)
    free(work.sorted.items)
    free(work.starts)
    free(work.items)
    free(work.frame)
    free(work.sheet)
    free(work.pool.items)
    free(work.words)
    free(work.table.waiting)
    free(work.table.finals)


cdef int run_job(const Job* job) noexcept nogil:
    """Do a job; return -1 without memory."""
    cdef Work work
    cdef uint8_t* inside = <uint8_t*> malloc(job.width + 16)
    cdef int32_t* edges = <int32_t*> malloc((job.width + 2) * sizeof(int32_t))
    cdef int status = -1
    memset(&work, 0, sizeof(Work))
    if inside != NULL and edges != NULL:
        memset(inside, 0, job.width + 16)
        status = stream(&work, job, inside, edges)
    free(inside)
    free(edges)
    release(&work)
    return status


def flood_clumps(const float[:, ::1] image, const uint8_t[:, ::1] mask, int32_t[:, ::1] out, float floor, double h,
                 Py_ssize_t smallest, int neighbours, bint maxima):
    """Label the maxima of `image`, or their regions, into `out`, which is zero; no array is empty.

    Parameters
    ----------
    image : (H, W) float32
        Heights.
    mask : (H, W) uint8, or None
        Where to look.
    out : (H, W) int32
        Labels.
    floor : float
        Clumps are what lies above; NaN: all numbers.
    h : float
        Dynamics that a maximum must exceed.
    smallest : int
        Regions of fewer pixels are dropped.
    neighbours : int
        4 or 8.
    maxima : bool
        Write maxima, not regions.
    """
    cdef Job job
    memset(&job, 0, sizeof(Job))
    job.rule.h, job.floor, job.smallest, job.task = h, floor, smallest, MAXIMA if maxima else REGIONS
    flood_image(&job, image, mask, out, neighbours)


def flood_markers(const float[:, ::1] image, const uint8_t[:, ::1] mask, int32_t[:, ::1] labels, int neighbours,
                  bint low_first):
    """Turn markers into the regions that are flooded from them; no array is empty.

    Parameters
    ----------
    image : (H, W) float32
        Heights; NaN is outside.
    mask : (H, W) uint8, or None
        Where to flood.
    labels : (H, W) int32
        Markers, not negative; overwritten. Outside the mask they are removed.
    neighbours : int
        4 or 8.
    low_first : bool
        Whether the lowest pixels are flooded first, or the highest.
    """
    cdef Job job
    memset(&job, 0, sizeof(Job))
    job.floor, job.task, job.low_first = NAN, GROW, low_first
    flood_image(&job, image, mask, labels, neighbours)


cdef flood_image(Job* job, const float[:, ::1] image, const uint8_t[:, ::1] mask, int32_t[:, ::1] out, int neighbours):
    cdef int status
    if mask is not None:
        job.mask = &mask[0, 0]
    job.rule.image, job.rule.width, job.rule.neighbours = &image[0, 0], image.shape[1], neighbours
    job.out = &out[0, 0]
    job.height, job.width = image.shape[0], image.shape[1]
    with nogil:
        status = run_job(job)
    if status:
        raise MemoryError("no memory to flood the image, or a clump of too many pixels")
