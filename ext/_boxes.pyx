# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Bounding boxes and selection of labels. Called through nuclix.ext.boxes, which validates."""

from libc.stdint cimport int32_t, uint8_t


def label_boxes(const int32_t[:, ::1] labels, int32_t[:, ::1] boxes):
    """Fill boxes[k] with the (first row, first column, end row, end column) of label k.

    Preconditions: labels lie in 0..len(boxes) - 1, and boxes[k] is (height, width, 0, 0), which stays where there is
    no pixel. One pass; equal neighbours of a row are taken together.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c, start
    cdef int32_t label
    cdef int32_t *box
    with nogil:
        for r in range(height):
            c = 0
            while c < width:
                label = labels[r, c]
                start = c
                c += 1
                while c < width and labels[r, c] == label:
                    c += 1
                if label == 0:
                    continue
                box = &boxes[label, 0]
                if r < box[0]:
                    box[0] = <int32_t> r
                if start < box[1]:
                    box[1] = <int32_t> start
                box[2] = <int32_t> (r + 1)
                if c > box[3]:
                    box[3] = <int32_t> c


def select_labels(const int32_t[:, ::1] labels, const uint8_t[::1] wanted, uint8_t[:, ::1] mask):
    """Set mask to wanted[label], pixel by pixel. Precondition: labels lie in 0..len(wanted) - 1."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c
    with nogil:
        for r in range(height):
            for c in range(width):
                mask[r, c] = wanted[labels[r, c]]
