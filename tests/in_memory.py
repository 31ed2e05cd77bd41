"""A file or a stream in memory, as readers of files take one."""

__all__ = ["Content"]


class Content(bytes):
    """Bytes as a `Window` of `armferry.stream`."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset."""
        return self[offset : offset + length]
