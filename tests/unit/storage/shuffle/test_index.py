"""The layout of a map output, byte for byte."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.storage.shuffle.index import FOOTER_BYTES, BadIndex, BlockEntry, decode_end, decode_footer, encode_index

BLOCKS = [b"abc", b"", b"defgh"]


def layout(blocks):
    return b"".join(blocks) + encode_index([len(block) for block in blocks], [zlib.crc32(block) for block in blocks])


def read(data):
    footer = decode_footer(data[-FOOTER_BYTES:], len(data))
    return decode_end(data[footer.index_offset :], len(data))[1]


def test_the_layout_is_what_the_documentation_says():
    data = layout([b"ab", b"c"])
    columns = (0).to_bytes(8, "little") + (2).to_bytes(8, "little")
    columns += (2).to_bytes(8, "little") + (1).to_bytes(8, "little")
    columns += zlib.crc32(b"ab").to_bytes(4, "little") + zlib.crc32(b"c").to_bytes(4, "little")
    footer = zlib.crc32(columns).to_bytes(4, "little") + (2).to_bytes(4, "little") + (3).to_bytes(8, "little")
    footer += (1).to_bytes(4, "little") + b"FKSO"
    assert data == b"abc" + columns + footer


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_every_block_is_found_again(blocks):
    data = layout(blocks)
    index = read(data)
    for reducer, block in enumerate(blocks):
        entry = index.entry(reducer)
        assert data[entry.offset : entry.offset + entry.length] == block
        assert entry.checksum == zlib.crc32(block)


@given(st.integers(0, len(layout(BLOCKS)) - 1))
def test_a_file_cut_short_is_refused(length):
    with pytest.raises(BadIndex):
        read(layout(BLOCKS)[:length])


@given(st.integers(0, 7), st.integers(sum(map(len, BLOCKS)), len(layout(BLOCKS)) - 1))
def test_any_bit_flipped_in_the_index_or_footer_is_noticed(bit, place):
    data = bytearray(layout(BLOCKS))
    data[place] ^= 1 << bit
    with pytest.raises(BadIndex):
        read(bytes(data))


@pytest.mark.parametrize("reducer", [-1, 3, 100])
def test_a_reducer_that_is_not_there_is_refused(reducer):
    with pytest.raises(BadIndex, match="no reducer"):
        read(layout(BLOCKS)).entry(reducer)


def test_an_empty_block_has_length_zero():
    assert read(layout(BLOCKS)).entry(1) == BlockEntry(3, 0, 0)
