"""Packets of a JPEG 2000 codestream: their headers must lead from one to the next, and end at the end.

A packet's header says which code-blocks follow and how many bytes each has (ITU-T T.800, B.9 and B.10). Bytes
of elsewhere, or moved ones, break that chain, which decoders follow as far as it goes.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct

_SIZE, _CODING, _QUANTISATION, _START_OF_PART, _START_OF_DATA = 0xFF51, 0xFF52, 0xFF5C, 0xFF90, 0xFF93
# Markers that say something else for some components, or move headers elsewhere: no chain is followed then.
_SPECIAL = frozenset((0xFF53, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61))
# Layer, resolution and component, from outermost, of the progression orders (A.6.1); the last three have
# precincts in between, which changes nothing where there is one.
_LAYER, _RESOLUTION, _COMPONENT = range(3)
_ORDERS = (
    (_LAYER, _RESOLUTION, _COMPONENT), (_RESOLUTION, _LAYER, _COMPONENT), (_RESOLUTION, _COMPONENT, _LAYER),
    (_COMPONENT, _RESOLUTION, _LAYER), (_COMPONENT, _RESOLUTION, _LAYER),
)  # fmt: skip
_FIRST_BY_PLACE = 2
# Bytes that a header takes at most, about: some, and so many for each code-block.
_HEADER_BYTES, _BLOCK_BYTES = 16, 12
_BROKEN = "its packets don't follow one another"


def check_packets(stream: bytes) -> None:
    """Follows the packets of a codestream.

    Args:
        stream: A codestream of one tile at the origin, whose markers were checked. Others, and rare coding
            styles, are left alone.

    Raises:
        ValueError: The packets don't follow one another to the end.
        struct.error, IndexError: The stream ends early.
    """
    headers, parts = _markers(stream)
    if parts is None or headers.keys() & _SPECIAL:
        return
    coding = headers[_CODING]
    packets = _layout(headers[_SIZE], coding, headers[_QUANTISATION])
    precincts: dict[int, list[_Band]] = {}
    data, position = b"".join(parts) if packets else b"", 0
    for layer, number, most, shapes in packets:
        if position >= len(data):
            raise ValueError(_BROKEN)
        if number not in precincts:
            precincts[number] = [_Band(*shape) for shape in shapes]
        position = _packet(
            data, position, layer, precincts[number], most, sop=coding[0] & 2, eph=coding[0] & 4
        )
    if position != len(data):
        raise ValueError(_BROKEN)


def _markers(stream: bytes) -> tuple[dict[int, bytes], list[bytes] | None]:
    """Segments by marker, and the data of the tile-parts; None where there are several tiles."""
    segments: dict[int, bytes] = {}
    parts: list[bytes] = []
    position, part_end = 2, 0
    while (marker := int.from_bytes(stream[position : position + 2])) != 0xFFD9:
        if marker == _START_OF_DATA:
            parts.append(stream[position + 2 : part_end])
            position = part_end
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker == _START_OF_PART:
            tile, size = struct.unpack_from(">HI", stream, position + 4)
            if tile:
                return segments, None
            part_end = position + size if size else stream.rfind(b"\xff\xd9")
        segments[marker] = stream[position + 4 : position + 2 + length]
        position += 2 + length
    return segments, parts


class _Band:
    """The code-blocks of a precinct in one sub-band, and what earlier layers said of them."""

    def __init__(self, across: int, down: int, planes: int) -> None:
        self.planes = planes
        self.paths, nodes = _paths(across, down)
        # Tag trees (B.10.2): the layer that first includes something of a node, as far as it is known, and
        # how many bit planes are zero.
        self.included, self.known = [0] * nodes, bytearray(nodes)
        self.zeros: list[int | None] = [None] * nodes
        # Of a block: passes that its planes still allow, and bits of a length.
        self.blocks: dict[int, list[int]] = {}

    def includes(self, path: tuple[int, ...], layer: int, text: str, place: int) -> tuple[bool, int]:
        """True if a code-block begins in a layer (it is in no earlier one), and the place of the next bit."""
        low, included, known = 0, self.included, self.known
        for node in path:
            low = max(low, included[node])
            while low <= layer and not known[node]:
                known[node] = text[place] == "1"
                low += not known[node]
                place += 1
            included[node] = low
        return low <= layer, place

    def begin(self, number: int, text: str, place: int) -> tuple[list[int], int]:
        """A code-block that begins here, and the place of the bit behind the number of its zero planes."""
        zeros = 0
        for node in self.paths[number]:
            if (known := self.zeros[node]) is None:
                if (one := text.find("1", place)) < 0:
                    raise ValueError(_BROKEN)
                known = self.zeros[node] = zeros + one - place
                place = one + 1
            zeros = known
        # A first bit plane has one pass, each further one three.
        block = self.blocks[number] = [3 * (self.planes - zeros) - 2, 3]
        return block, place


@functools.lru_cache(maxsize=64)
def _paths(across: int, down: int) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The nodes of a tag tree (B.10.2) from its root to each code-block, and how many it has."""
    leaves = [(x, y) for y in range(down) for x in range(across)]
    paths: list[tuple[int, ...]] = [()] * len(leaves)
    level, nodes = 0, 0
    while True:
        paths = [
            (nodes + (y >> level) * across + (x >> level), *path)
            for (x, y), path in zip(leaves, paths, strict=True)
        ]
        nodes += across * down
        if across * down <= 1:
            return tuple(paths), nodes
        level, across, down = level + 1, (across + 1) // 2, (down + 1) // 2


def _bits(data: bytes) -> str:
    """The bits of a packet's header as a text; after a byte 0xFF comes one of seven bits."""
    first, *others = data.split(b"\xff")
    pieces = [_text(first)]
    for other in others:
        pieces += ["1" * 8, _text(other)[1:]]
    return "".join(pieces)


def _text(data: bytes) -> str:
    return f"{int.from_bytes(data):0{8 * len(data)}b}" if data else ""


def _header_bytes(data: bytes, bits: int) -> int:
    """How many bytes a header of so many bits takes; one that ends with 0xFF has a byte without content."""
    at = -1
    while (at := data.find(0xFF, at + 1)) >= 0 and 8 * (at + 1) < bits:
        bits += 1
    count = (bits + 7) // 8
    return count + (data[count - 1] == 0xFF)


# Number of coding passes (table B.4), then bits by which the number of a length's bits grows.
_PASSES = {"0": 1, "10": 2, "1100": 3, "1101": 4, "1110": 5}
_PASSES |= {f"1111{number:05b}": 6 + number for number in range(31)}
_PASSES |= {f"{'1' * 9}{number:07b}": 37 + number for number in range(128)}
_CODES = re.compile("(0|10|110.|1110|1111(?!11111).....|111111111.......)(1*)0").match


def _blocks(text: str, layer: int, bands: list[_Band], lengths: list[int]) -> int:
    """Reads what a header says of code-blocks, adds their lengths, and gives the number of its bits."""
    place = 1
    for band in bands:
        blocks = band.blocks
        for number, path in enumerate(band.paths):
            if (block := blocks.get(number)) is None:
                begins, place = band.includes(path, layer, text, place)
                if not begins:
                    continue
                block, place = band.begin(number, text, place)
            else:
                place += 1
                if text[place - 1] == "0":
                    continue
            if (codes := _CODES(text, place)) is None:
                raise ValueError(_BROKEN)
            passes = _PASSES[codes[1]]
            block[0] -= passes
            block[1] += len(codes[2])
            place = codes.end() + block[1] + passes.bit_length() - 1
            if block[0] < 0 or place > len(text):
                raise ValueError(_BROKEN)
            lengths.append(int(text[codes.end() : place], 2))
    return place


def _packet(
    data: bytes, position: int, layer: int, bands: list[_Band], most: int, *, sop: int, eph: int
) -> int:
    """Reads a packet, whose header has at most so many bytes, and gives the place behind it."""
    if sop and data[position : position + 4] == b"\xff\x91\0\4":
        position += 6
    lengths: list[int] = []
    if data[position] < 0x80:  # nothing follows the first bit
        position += 1
    else:
        header = data[position : position + most]
        place = _blocks(_bits(header), layer, bands, lengths)
        position += _header_bytes(header, place)
    if eph and data[position : position + 2] == b"\xff\x92":
        position += 2
    for length in lengths:
        position += length
        if position > len(data) or (length and data[position - 1] == 0xFF):
            raise ValueError(_BROKEN)
    return position


_Shapes = tuple[tuple[int, int, int], ...]
"""Of a precinct: code-blocks across and down, and most bit planes, in each sub-band."""


@functools.lru_cache(maxsize=64)
def _layout(size: bytes, coding: bytes, quantisation: bytes) -> tuple[tuple[int, int, int, _Shapes], ...]:
    """Layer, number of the precinct, most bytes of the header and sub-bands of each packet, in order.

    Empty: it is left alone.
    """
    width, height, *place, n_components = struct.unpack_from(">8IH", size, 2)
    own, order, layers, decompositions, *block, style = struct.unpack_from(">BBHxBBBB", coding)
    # A tile elsewhere than at the origin, several tiles; blocks of several segments (styles 1 and 4).
    if any(place[:2] + place[4:]) or place[2] < width or place[3] < height or style & 5:
        return ()
    precincts: dict[tuple[int, int], list[tuple[int, _Shapes]]] = {}
    count = 0
    for resolution in range(decompositions + 1):
        sides = coding[10 + resolution] if own & 1 else 0xFF
        for component in range(n_components):
            steps = size[37 + 3 * component], size[38 + 3 * component]
            shapes = _precincts(
                (-(-width // steps[0]), -(-height // steps[1])), decompositions, resolution,
                (sides & 15, sides >> 4), (block[0] + 2, block[1] + 2), quantisation,
            )  # fmt: skip
            precincts[resolution, component] = list(enumerate(shapes, count))
            count += len(shapes)
    if order >= len(_ORDERS) or (order >= _FIRST_BY_PLACE and any(len(p) > 1 for p in precincts.values())):
        return ()
    counts = {_LAYER: layers, _RESOLUTION: decompositions + 1, _COMPONENT: n_components}
    packets: list[tuple[int, int, int, _Shapes]] = []
    for numbers in itertools.product(*(range(counts[each]) for each in _ORDERS[order])):
        at = dict(zip(_ORDERS[order], numbers, strict=True))
        of_layer = precincts[at[_RESOLUTION], at[_COMPONENT]]
        for number, bands in of_layer:
            most = _HEADER_BYTES + _BLOCK_BYTES * sum(across * down for across, down, _ in bands)
            packets.append((at[_LAYER], number, most, bands))
    return tuple(packets)


def _precincts(
    size: tuple[int, int], decompositions: int, resolution: int, sides: tuple[int, int],
    block: tuple[int, int], quantisation: bytes,
) -> list[_Shapes]:  # fmt: skip
    """The sub-bands of each precinct of a resolution (B.5 to B.7); sides and blocks as powers of two."""
    halvings = decompositions - max(resolution - 1, 0)
    kinds = ((1, 0), (0, 1), (1, 1)) if resolution else ((0, 0),)
    # Where precincts are counted in pixels of a sub-band.
    steps = [side - (resolution > 0) for side in sides]
    across, down = (
        -(-px // (1 << decompositions - resolution + side)) for px, side in zip(size, sides, strict=True)
    )
    found = []
    for number in range(across * down):
        place = number % across, number // across
        shapes = []
        for kind, high in enumerate(kinds):
            blocks = []
            for axis in (0, 1):
                half = high[axis] << halvings >> 1
                band_px = -(-(size[axis] - half) // (1 << halvings))
                px = min(max(band_px - (place[axis] << steps[axis]), 0), 1 << steps[axis])
                blocks.append(-(-px // (1 << min(block[axis], steps[axis]))))
            if blocks[0] * blocks[1]:
                planes = _planes(quantisation, 3 * (resolution - 1) + kind + 1 if resolution else 0)
                shapes.append((blocks[0], blocks[1], planes))
        found.append(tuple(shapes))
    return found


def _planes(quantisation: bytes, band: int) -> int:
    """The most bit planes of a sub-band (E.1): guard bits and exponent, less one."""
    style, guard = quantisation[0] & 31, quantisation[0] >> 5
    if style == 0:
        exponent = quantisation[1 + band] >> 3
    elif style == 1:  # that of the first, one less with each resolution
        exponent = (quantisation[1] >> 3) - (max(band - 1, 0) // 3)
    else:
        exponent = quantisation[1 + 2 * band] >> 3
    return guard + exponent - 1
