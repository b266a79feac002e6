"""The process that contracts a mesh's edges: `python -m backend.hunyuan3d.mesh.decimation_child [FILE]`.

The library holds the interpreter for as long as it works, which in a process of its own keeps nobody waiting. One
question on standard input, one answer on standard output, then the end; each is a header and arrays as they lie in
memory, little-endian: points (V, 3) float64, then corners (F, 3) int32. READY comes before the answer, once everything
is loaded. FILE is the number of an open pipe: with it, the question is read once a byte has come through, so that the
process can come up before there is a question; if the pipe ends without one, nobody will ask. Whatever else is printed
goes to standard error. The exit code is OUT_OF_MEMORY when that is what happened.

It imports nothing but numpy and the library, so as to start quickly, and does not know who asks.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from typing import BinaryIO

import fast_simplification
import numpy as np
from numpy.typing import NDArray

READY = b"ORFEAS-1"
QUESTION = struct.Struct("<qqqdq")
"""Vertices, faces, the faces to come to, the aggressiveness, the seconds after which the process ends itself."""
ANSWER = struct.Struct("<qq")
"""Vertices, faces."""
POINT, CORNER = np.dtype("<f8"), np.dtype("<i4")
OUT_OF_MEMORY = 3

Points = NDArray[np.float64]
Corners = NDArray[np.int32]


def read_arrays(stream: BinaryIO, vertices: int, faces: int) -> tuple[Points, Corners]:
    """Return points (vertices, 3) and corners (faces, 3). Raises EOFError when fewer bytes come."""
    points, corners = np.empty((vertices, 3), POINT), np.empty((faces, 3), CORNER)
    for array in (points, corners):
        if array.size and stream.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
            raise EOFError("the arrays end early")
    return points, corners


def write_arrays(stream: BinaryIO, points: NDArray[np.floating], corners: NDArray[np.integer]) -> None:
    """Write what `read_arrays` reads."""
    stream.write(np.ascontiguousarray(points, POINT).data)
    stream.write(np.ascontiguousarray(corners, CORNER).data)


def answer(question: BinaryIO, out: BinaryIO) -> None:
    """Read one question, contract, write the answer."""
    vertices, faces, target_faces, aggressiveness, seconds = QUESTION.unpack(question.read(QUESTION.size))
    # Whoever asked may be gone by then, and with it the one who would end this process.
    signal.alarm(seconds)
    points, corners = read_arrays(question, vertices, faces)
    points, corners = fast_simplification.simplify(points, corners, target_count=target_faces, agg=aggressiveness)
    out.write(ANSWER.pack(len(points), len(corners)))
    write_arrays(out, points, corners)


def main(arguments: list[str]) -> int:
    """Answer the question on standard input; the exit code."""
    with os.fdopen(os.dup(1), "wb") as out:
        # The library is C++ and may print; that must not end up between the numbers.
        os.dup2(2, 1)
        out.write(READY)
        out.flush()
        if arguments and not os.read(int(arguments[0]), 1):
            return 0
        try:
            answer(sys.stdin.buffer, out)
        except MemoryError:
            return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
