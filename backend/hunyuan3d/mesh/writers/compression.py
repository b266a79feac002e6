"""What makes a GLB smaller: rounded numbers, and the packed bytes of meshopt or Draco.

meshopt is written here, in its first version: attributes as byte-wise differences in groups of 16, indices as a
sequence of differences. Source: EXT_meshopt_compression's specification, "Mode 0: attributes" and "Mode 2: indices".
Draco is DracoPy's, an extra dependency. This module does not know how a file names what lies in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import ExportError

Attributes = dict[str, NDArray[Any]]
Bytes = NDArray[np.uint8]

_POSITION_STEPS = 65_535
_ATTRIBUTE_HEADER, _INDEX_HEADER = 0xA0, 0xD1
_GROUP = 16
_MOST_IN_BLOCK = 256
_BLOCK_BYTES = 8192
_TAIL = 32
# Draco's bits: a 65,536th of the longest side, a normal within a third of a degree, a 4,096th of the texture.
_DRACO_BITS = {"quantization_bits": 16, "normal_quantization_bits": 10, "tex_coord_quantization_bits": 14}
_DRACO_LEVEL = 7


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a reader gets out of a compressed primitive: attributes by name, and faces (F, 3)."""

    attributes: Attributes
    faces: NDArray[Any]


def quantised(attributes: Attributes) -> tuple[Attributes, dict[str, Any]]:
    """Round attributes as KHR_mesh_quantization allows; return them, and the node's properties that undo it.

    Positions : whole numbers up to 65,535 along the longest side. NORMAL : 16 bits. TEXCOORD_0 : 16 bits.
    """
    found = dict(attributes)
    positions = attributes["POSITION"].astype(np.float64)
    low = positions.min(axis=0)
    step = max(float(np.ptp(positions, axis=0).max()), 1e-30) / _POSITION_STEPS
    found["POSITION"] = np.rint((positions - low) / step).astype("<u2")
    found["NORMAL"] = np.rint(attributes["NORMAL"] * 32767).astype("<i2")
    if "TEXCOORD_0" in found:
        found["TEXCOORD_0"] = np.rint(np.clip(found["TEXCOORD_0"], 0, 1) * 65535).astype("<u2")
    return found, {"translation": low.tolist(), "scale": [step] * 3}


def draco_primitive(attributes: Attributes, faces: NDArray[Any]) -> tuple[bytes, dict[str, int], Decoded]:
    """Return a mesh as Draco's bytes, the number of each attribute in there, and what a reader gets out again.

    Raises ExportError where DracoPy is not installed.
    """
    try:
        import DracoPy
    except ImportError as missing:
        raise ExportError("compress=draco needs DracoPy: pip install 'orfeas[draco]'.") from missing
    colors, places = attributes.get("COLOR_0"), attributes.get("TEXCOORD_0")
    data = DracoPy.encode(
        attributes["POSITION"].astype(np.float64),
        faces.astype(np.uint32),
        compression_level=_DRACO_LEVEL,
        normals=attributes["NORMAL"].astype(np.float64),
        tex_coord=None if places is None else places.astype(np.float64),
        generic_attributes=None if colors is None else {_COLOR_ID: colors},
        **_DRACO_BITS,
    )
    mesh = DracoPy.decode(data)
    decoded = {"POSITION": np.asarray(mesh.points, "<f4"), "NORMAL": np.asarray(mesh.normals, "<f4")}
    if "TEXCOORD_0" in attributes:
        decoded["TEXCOORD_0"] = np.asarray(mesh.tex_coord, "<f4")
    if colors is not None:
        decoded["COLOR_0"] = np.asarray(mesh.get_attribute_by_unique_id(_COLOR_ID)["data"], "<u2")
    return data, _draco_ids(mesh, decoded), Decoded(decoded, np.asarray(mesh.faces, faces.dtype))


_COLOR_ID = 7
_DRACO_TYPES = {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 3}


def _draco_ids(mesh: Any, decoded: Attributes) -> dict[str, int]:
    kinds = {each["attribute_type"]: int(each["unique_id"]) for each in mesh.attributes}
    return {name: _COLOR_ID if name == "COLOR_0" else kinds[_DRACO_TYPES[name]] for name in decoded}


def meshopt_bytes(rows: NDArray[Any], stride: int, *, indices: bool) -> bytes:
    """Return rows (N, K) packed; stride : bytes of a row, zeros behind it included."""
    if indices:
        return _index_bytes(rows.reshape(-1).astype(np.int64))
    plain = np.zeros((len(rows), stride), np.uint8)
    own = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    plain[:, : own.shape[1]] = own
    return _attribute_bytes(plain)


def _index_bytes(indices: NDArray[np.int64]) -> bytes:
    """Pack a sequence: differences from the one before as whole numbers of 7 bits a byte, least first."""
    step = np.diff(indices, prepend=0)
    # The lowest bit names one of two numbers to count from; here it is always the first.
    value = ((step << 1) ^ (step >> 63)) << 1
    size = 1 + (value >= 1 << 7).astype(np.int64) + (value >= 1 << 14) + (value >= 1 << 21) + (value >= 1 << 28)
    start = np.concatenate([[0], np.cumsum(size)])
    packed = np.zeros(int(start[-1]), np.uint8)
    for k in range(5):
        longer = size > k
        more = np.where(size[longer] > k + 1, 128, 0)
        packed[start[:-1][longer] + k] = ((value[longer] >> (7 * k)) & 127) | more
    return bytes([_INDEX_HEADER]) + packed.tobytes() + b"\0" * 4


def _attribute_bytes(rows: Bytes) -> bytes:
    """Pack rows (N, S): block by block, byte by byte of a row, differences from the row before in groups of 16."""
    count, stride = rows.shape
    per_block = min(_BLOCK_BYTES // stride // _GROUP * _GROUP, _MOST_IN_BLOCK)
    step = np.diff(rows, axis=0, prepend=rows[:1]).view(np.int8).astype(np.int16)
    zigzag = ((step << 1) ^ (step >> 7)).astype(np.uint8)
    whole = count // per_block * per_block
    packed = _blocks_bytes(zigzag[:whole].reshape(-1, per_block, stride))
    if count > whole:
        rest = np.zeros((-(-(count - whole) // _GROUP) * _GROUP, stride), np.uint8)
        rest[: count - whole] = zigzag[whole:]
        packed += _blocks_bytes(rest[None])
    first: bytes = rows[0].tobytes()
    return bytes([_ATTRIBUTE_HEADER]) + packed + first.rjust(_TAIL, b"\0")


def _blocks_bytes(blocks: Bytes) -> bytes:
    """Pack blocks (B, 16 G, S) of differences: for each byte of a row two bits a group that say how wide, then groups.

    A group is nothing where all is 0, or 16 values of 2 or 4 bits and a byte more for each that does not fit, or bytes.
    """
    count, rows, stride = blocks.shape
    per_column = rows // _GROUP
    groups = blocks.transpose(0, 2, 1).reshape(-1, _GROUP)
    sizes = np.stack(
        [
            np.where(groups.any(axis=1), 255, 0),
            4 + (groups >= 3).sum(axis=1),
            8 + (groups >= 15).sum(axis=1),
            np.full(len(groups), _GROUP),
        ]
    )
    mode = sizes.argmin(axis=0)
    size = sizes[mode, np.arange(len(groups))].reshape(-1, per_column)
    heads = np.zeros((count * stride, -(-per_column // 4) * 4), np.uint8)
    heads[:, :per_column] = mode.reshape(-1, per_column)
    heads = _in_bytes(heads.reshape(-1, 4), (0, 2, 4, 6)).reshape(count * stride, -(-per_column // 4))
    begin = np.concatenate([[0], np.cumsum(heads.shape[1] + size.sum(axis=1))])
    packed = np.zeros(int(begin[-1]), np.uint8)
    packed[begin[:-1, None] + np.arange(heads.shape[1])] = heads
    start = (begin[:-1, None] + heads.shape[1] + np.cumsum(size, axis=1) - size).reshape(-1)
    for kind, sentinel, shifts in ((1, 3, (6, 4, 2, 0)), (2, 15, (4, 0))):
        chosen = groups[mode == kind]
        low = _in_bytes(np.minimum(chosen, sentinel).reshape(-1, len(shifts)), shifts).reshape(
            -1, _GROUP // len(shifts)
        )
        at = start[mode == kind, None]
        packed[at + np.arange(low.shape[1])] = low
        large = chosen >= sentinel
        packed[(at + low.shape[1] + np.cumsum(large, axis=1) - 1)[large]] = chosen[large]
    packed[start[mode == 3, None] + np.arange(_GROUP)] = groups[mode == 3]
    return packed.tobytes()


def _in_bytes(values: Bytes, shifts: tuple[int, ...]) -> Bytes:
    """Put values (N, K) side by side into bytes (N,)."""
    packed: Bytes = (values << np.array(shifts, np.uint8)).sum(axis=1).astype(np.uint8)
    return packed
