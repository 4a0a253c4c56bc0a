"""Runs of zeros, which need not be written."""

MIN_HOLE = 1 << 15
"""Bytes; a shorter run may share its pages with what is beside it."""
_ZEROS = bytes(1 << 20)


def is_zero(piece: "bytes | memoryview") -> bool:
    """Whether all of it is; of what is not mostly its first byte tells."""
    if piece[0] or piece[-1] or piece[len(piece) // 2]:
        return False
    return all(
        bytes(piece[at : at + len(_ZEROS)]) == _ZEROS[: len(piece) - at] for at in range(0, len(piece), len(_ZEROS))
    )
