# Holes of labels. Included in _gradient_energy.pyx.


cdef void flood_outside(uint8_t* frame, Py_ssize_t height, Py_ssize_t width, int32_t* stack) noexcept nogil:
    """Set the zeros of a frame that are 4-connected with its first to 2; its outermost pixels are zeros."""
    cdef Py_ssize_t filled = 1, at, near
    cdef Py_ssize_t[4] steps
    cdef int side
    steps[0], steps[1], steps[2], steps[3] = 1, -1, width, -width
    stack[0], frame[0] = 0, 2
    while filled:
        filled -= 1
        at = stack[filled]
        for side in range(4):
            near = at + steps[side]
            if 0 <= near < height * width and frame[near] == 0:
                frame[near] = 2
                stack[filled] = <int32_t> near
                filled += 1


def fill_label_holes(int32_t[:, ::1] labels, const int32_t[:, ::1] clumps, const int32_t[:, ::1] boxes):
    """Give every label the pixels of its clump that it encloses; a label's pixels lie in one clump.

    Labels are filled in rising order; `boxes` are their first and end rows and columns.
    """
    cdef Py_ssize_t k, row, col, top, left, height, width, at, room = 0
    cdef uint8_t* frame = NULL
    cdef int32_t* stack = NULL
    cdef int32_t owner
    cdef int status = 0
    with nogil:
        for k in range(1, boxes.shape[0]):
            top, left = boxes[k, 0], boxes[k, 1]
            height, width = boxes[k, 2] - top + 2, boxes[k, 3] - left + 2
            if height < 5 or width < 5:             # a hole needs a pixel on either side
                continue
            if height * width > room:
                room = 2 * height * width
                free(frame)
                free(stack)
                frame = <uint8_t*> malloc(room)
                stack = <int32_t*> malloc(room * sizeof(int32_t))
                if frame == NULL or stack == NULL:
                    status = -1
                    break
            owner = 0
            for at in range(height * width):
                frame[at] = 0
            for row in range(1, height - 1):
                for col in range(1, width - 1):
                    if labels[top + row - 1, left + col - 1] == k:
                        frame[row * width + col] = 1
                        owner = clumps[top + row - 1, left + col - 1]
            flood_outside(frame, height, width, stack)
            for row in range(1, height - 1):
                for col in range(1, width - 1):
                    if frame[row * width + col] == 0 and clumps[top + row - 1, left + col - 1] == owner:
                        labels[top + row - 1, left + col - 1] = <int32_t> k
        free(frame)
        free(stack)
    if status:
        raise MemoryError("no memory to fill the holes of labels")
