"""The records of guest memory, walked without looking at a single page.

Rule of this file: `RamWalker.walk` is the only loop that runs once per page. Everything rarer
than a page (a block name, a compressed page, the end of a section) leaves that loop.

Each record begins with a be64: the page's address in its block, flags in the low bits.
"""

import contextlib
import struct

from armferry.stream.errors import (
    CorruptStream,
    OversizedStream,
    StreamError,
    UnsupportedStream,
)
from armferry.stream.events import RamBlock, RamBlocks, RamRecord, RamRecordKind
from armferry.stream.wire import BE16, BE32, BE64, MAX_RAM_BLOCKS, Buffer, RamFlag

__all__ = ["BlockListReader", "RamWalker"]

_ZERO_AGAIN = int(RamFlag.ZERO | RamFlag.CONTINUE)
_PAGE_AGAIN = int(RamFlag.PAGE | RamFlag.CONTINUE)
_ZERO_LENGTH = 8 + 1
_TWO_WORDS = struct.Struct(">QQ")
_MAPPED_RAM = struct.Struct(">IQQQ")
"""Version, page size, offset of the bitmap, offset of the pages."""
_MAX_MAPPED_REGION = 1 << 50
_SMALLEST_PAGE = 1 << 12


class RamWalker:
    """Walks the records of one RAM section, over any number of buffers.

    `skip` is how many bytes of the last record lie beyond the buffer; the next walk begins
    after them. `pages` and `zero_pages` count what has passed since the walker was made.
    """

    def __init__(self, page_size: int) -> None:
        self._page_record = 8 + page_size
        self._mask = page_size - 1
        self._page_size = page_size
        self.block = ""
        self.skip = 0
        self.pages = 0
        self.zero_pages = 0

    def walk(
        self, view: Buffer, position: int, base: int, records: list[RamRecord] | None
    ) -> tuple[int, bool]:
        """Walks `view` from `position`; returns where it stopped and whether the section ended.

        `base` is the stream offset of `view[0]`. Records are appended to `records` unless it
        is None. Stops before a record whose header is not whole.

        Raises CorruptStream, OversizedStream or UnsupportedStream.
        """
        end = len(view)
        if self.skip:
            step = min(self.skip, end - position)
            self.skip -= step
            position += step
            if self.skip:
                return position, False
        # the last two bytes of a header hold every flag; reading them alone is the fastest way
        mark = position + 7
        high_flags = self._mask >> 8
        page_record = self._page_record
        page_again, zero_again, zero_length = _PAGE_AGAIN, _ZERO_AGAIN, _ZERO_LENGTH
        pages = zero_pages = 0
        ended = False
        while mark < end and not ended:
            if records is None:
                # once per page: nothing in here but what tells the two usual records apart
                with contextlib.suppress(IndexError):  # beyond the end of the view
                    while not view[mark - 1] & high_flags:
                        flags = view[mark]
                        if flags == page_again:
                            mark += page_record
                            pages += 1
                        elif flags == zero_again:
                            mark += zero_length
                            zero_pages += 1
                        else:
                            break
                if mark >= end:
                    break
            begin = mark - 7
            flags = view[mark]
            if flags == page_again and not view[mark - 1] & high_flags:
                mark += page_record
                pages += 1
            elif flags == zero_again and not view[mark - 1] & high_flags:
                mark += zero_length
                zero_pages += 1
            else:
                length = self._rare_record(view, begin, base)
                if length is None:
                    break
                mark += length
                ended = flags == RamFlag.EOS
            if records is not None:
                records.append(self._record(view, begin, base, mark - 7 - begin))
        self.pages += pages
        self.zero_pages += zero_pages
        position = mark - 7
        if position > end:
            self.skip = position - end
            position = end
        return position, ended

    def _rare_record(self, view: Buffer, position: int, base: int) -> int | None:
        """Bytes of the record at `position`, None while its header is not whole."""
        word = BE64.unpack_from(view, position)[0]
        if word in (RamFlag.EOS, RamFlag.MULTIFD_FLUSH):
            return 8
        flags = word & self._mask
        offset = base + position
        if flags & RamFlag.HOOK:
            raise UnsupportedStream(
                "guest memory is sent by RDMA",
                offset=offset,
                section="ram",
                advice="migrate over tcp: or unix: instead",
            )
        kind = flags & ~RamFlag.CONTINUE
        if kind not in (RamFlag.ZERO, RamFlag.PAGE, RamFlag.XBZRLE, RamFlag.COMPRESS_PAGE):
            raise CorruptStream(
                f"a record of guest memory has the flags {flags:#x}", offset=offset, section="ram"
            )
        header = 8
        name = b""
        if not flags & RamFlag.CONTINUE:
            counted = _counted_name(view, position + 8, offset)
            if counted is None:
                return None
            name = counted
            header += 1 + len(name)
        if kind == RamFlag.XBZRLE:
            if position + header + 3 > len(view):
                return None
            length: int = BE16.unpack_from(view, position + header + 1)[0]
            if length > self._page_size:
                raise CorruptStream(
                    f"an xbzrle page takes {length} bytes, more than a page",
                    offset=offset,
                    section="ram",
                )
            body = 3 + length
        elif kind == RamFlag.COMPRESS_PAGE:
            if position + header + 4 > len(view):
                return None
            length = BE32.unpack_from(view, position + header)[0]
            if length > 2 * self._page_size:
                raise OversizedStream(
                    f"a compressed page takes {length} bytes", offset=offset, section="ram"
                )
            body = 4 + length
        elif kind == RamFlag.ZERO:
            body = 1
            self.zero_pages += 1
        else:
            body = self._page_size
            self.pages += 1
        if name:
            self.block = name.decode("ascii")
        return header + body

    def _record(self, view: Buffer, begin: int, base: int, length: int) -> RamRecord:
        word = BE64.unpack_from(view, begin)[0]
        kinds = {
            RamFlag.EOS: RamRecordKind.END,
            RamFlag.MULTIFD_FLUSH: RamRecordKind.MULTIFD_FLUSH,
            RamFlag.ZERO: RamRecordKind.ZERO,
            RamFlag.PAGE: RamRecordKind.PAGE,
            RamFlag.XBZRLE: RamRecordKind.XBZRLE,
            RamFlag.COMPRESS_PAGE: RamRecordKind.COMPRESSED,
        }
        return RamRecord(
            offset=base + begin,
            kind=kinds[RamFlag(word & self._mask & ~RamFlag.CONTINUE)],
            address=word & ~self._mask,
            block=self.block,
            length=length,
        )


class BlockListReader:
    """Reads the block list of a RAM start section, one block after the other.

    Three words are there only under some capabilities. A huge page size comes with postcopy
    and only for blocks on huge pages; it is told apart by what follows it. The block's address
    comes with x-ignore-shared. With mapped-ram there are offsets in the file, and the next
    block is listed behind the memory of this one: `skip` bytes lie between the two.
    """

    def __init__(self, capabilities: tuple[str, ...], *, postcopy: bool) -> None:
        self._ignore_shared = "x-ignore-shared" in capabilities
        self._mapped = "mapped-ram" in capabilities
        self._postcopy = postcopy
        self._offset = 0
        self._total: int | None = None
        self._remaining = 0
        self._blocks: list[RamBlock] = []
        self.skip = 0

    @property
    def whole(self) -> RamBlocks | None:
        """The list, once all of it has been read."""
        if self._total is None or self._remaining or self.skip:
            return None
        return RamBlocks(self._offset, self._total, tuple(self._blocks))

    def read(self, view: Buffer, position: int, base: int) -> int | None:
        """Reads at `position` what is whole; returns where it stopped, None for nowhere.

        `base` is the stream offset of `view[0]`. Raises CorruptStream or OversizedStream.
        """
        if self.skip:
            step = min(self.skip, len(view) - position)
            self.skip -= step
            return position + step if step else None
        if self._total is None:
            if len(view) < position + 8:
                return None
            return self._read_total(view, position, base)
        if len(self._blocks) == MAX_RAM_BLOCKS:
            raise self._fault(OversizedStream, f"more than {MAX_RAM_BLOCKS} memory blocks")
        read = self._block(view, position, base)
        if read is None:
            return None
        end, block = read
        if not 0 < block.length <= self._remaining:
            raise self._fault(
                CorruptStream,
                f"memory block '{block.name}' of {block.length} bytes does not fit "
                f"into the {self._total} bytes announced",
            )
        if block.pages_offset is not None:
            self.skip = block.pages_offset + block.length - (base + end)
            if block.pages_offset < base + end or self.skip >= _MAX_MAPPED_REGION:
                raise self._fault(
                    CorruptStream, f"the pages of '{block.name}' lie at {block.pages_offset:#x}"
                )
        self._remaining -= block.length
        self._blocks.append(block)
        return end

    def _read_total(self, view: Buffer, position: int, base: int) -> int:
        self._offset = base + position
        word = BE64.unpack_from(view, position)[0]
        if word & 0x3FF != RamFlag.MEM_SIZE:
            raise self._fault(CorruptStream, f"the list of memory blocks begins with {word:#x}")
        self._total = self._remaining = word & ~0x3FF
        return position + 8

    def _fault(self, kind: type[CorruptStream | OversizedStream], problem: str) -> StreamError:
        return kind(problem, offset=self._offset, section="ram")

    def _block(self, view: Buffer, position: int, base: int) -> tuple[int, RamBlock] | None:
        name = _counted_name(view, position, base + position)
        if name is None or len(view) < position + 1 + len(name) + 8:
            return None
        position += 1 + len(name)
        length = BE64.unpack_from(view, position)[0]
        position += 8
        page_size = address = bitmap_offset = pages_offset = None
        if self._postcopy:
            if len(view) < position + 16:
                return None
            page_size = self._huge_page_size(*_TWO_WORDS.unpack_from(view, position))
            position += 8 if page_size else 0
        if self._ignore_shared:
            if len(view) < position + 8:
                return None
            address = BE64.unpack_from(view, position)[0]
            position += 8
        if self._mapped:
            if len(view) < position + _MAPPED_RAM.size:
                return None
            _, page_size, bitmap_offset, pages_offset = _MAPPED_RAM.unpack_from(view, position)
            position += _MAPPED_RAM.size
        return position, RamBlock(
            name.decode("ascii"), length, page_size, address, bitmap_offset, pages_offset
        )

    def _huge_page_size(self, word: int, following: int) -> int | None:
        """`word` if it is a page size, judged by itself and by the word that follows it.

        Else it is the block's address, the next block's name (whose first byte is its length,
        never 0), or the first record after the list (its flags are below any page size).
        """
        if word < _SMALLEST_PAGE or word >> 56 or word & (word - 1):
            return None
        # with an address to come, `word` may be that address: then no address follows it
        if self._ignore_shared and (following >> 56 or following % _SMALLEST_PAGE):
            return None
        return int(word)


def _counted_name(view: Buffer, position: int, offset: int) -> bytes | None:
    """A block name, one byte of length before it; None while it is not whole."""
    if position >= len(view):
        return None
    length = view[position]
    name = bytes(view[position + 1 : position + 1 + length])
    if not length or not name.isascii() or not name.decode("ascii").isprintable():
        raise CorruptStream(f"{name!r} is no name of a memory block", offset=offset, section="ram")
    return name if len(name) == length else None
