"""Real streams, from data/*.mig.xz; data/README.md says how each was made."""

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from armferry.stream import StreamParser
from armferry.stream.events import RamRecord

DATA = Path(__file__).parent / "data"
MAPPED = "mapped-ram"
WHOLE = sorted(
    path.name.removesuffix(".mig.xz")
    for path in DATA.glob("*.mig.xz")
    if not path.name.startswith(MAPPED)
)


@dataclass(frozen=True)
class BytesWindow:
    """A window over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@cache
def recorded_stream(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.mig.xz").read_bytes())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`recorded` and `slim` take each stream in turn, but the one that is nearly all holes."""
    for fixture in ("recorded", "slim"):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, WHOLE, indirect=True)


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest) -> bytes:
    return recorded_stream(request.param)


@pytest.fixture(scope="session")
def stream_named() -> Callable[[str], bytes]:
    return recorded_stream


@pytest.fixture(scope="session")
def window_on() -> Callable[[bytes], BytesWindow]:
    return BytesWindow


@pytest.fixture(scope="session")
def mapped_ram_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mapped-ram file with its holes."""
    path = tmp_path_factory.mktemp("mapped") / "guest.mig"
    with lzma.open(DATA / f"{MAPPED}.mig.xz") as packed, path.open("wb") as file:
        while block := packed.read(1 << 20):
            if block.count(0) == len(block):
                file.seek(len(block), 1)
            else:
                file.write(block)
        file.truncate()
    return path


@cache
def slim_stream(name: str) -> bytes:
    """A recorded stream in which only every thousandth of its repeated zero pages is left."""
    data = recorded_stream(name)
    parser = StreamParser(ram_records=True)
    kept: list[bytes] = []
    at = zero = 0
    for event in (*parser.feed(data), *parser.close()):
        if isinstance(event, RamRecord) and event.length == 9:
            zero += 1
            if zero % 1000:
                kept.append(data[at : event.offset])
                at = event.offset + event.length
    return b"".join((*kept, data[at:]))


@pytest.fixture(scope="session")
def slim(request: pytest.FixtureRequest) -> bytes:
    return slim_stream(request.param)


@pytest.fixture(scope="session")
def slim_named() -> Callable[[str], bytes]:
    return slim_stream
