"""One end of a move as a command sees it: a fingerprint, and what it came in.

`open_subject` makes one of what a command line names, `saved_subject` of a saved state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armferry.ends import UNKNOWN, End
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.registers import Accelerator

if TYPE_CHECKING:
    # what reads streams is loaded for those alone
    from armferry.hosts.files.saved_file import Saved
    from armferry.stream import SavedState
    from armferry.stream.save_image import SaveImage

__all__ = ["Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One end of a move. `saved` is None unless it is a stream.

    `around` has what the stream was in, if it was in anything.
    """

    text: str
    fingerprint: Fingerprint
    saved: "SavedState | None"
    around: "Saved | None" = None

    @property
    def image(self) -> "SaveImage | None":
        """The head of the libvirt save image that the stream was in, if it was in one."""
        return None if self.around is None else self.around.image

    @property
    def machine(self) -> str:
        """The machine type, empty when unknown."""
        return self.fingerprint.provenance.machine

    @property
    def accelerator(self) -> Accelerator:
        """Who made the lists."""
        return self.fingerprint.accelerator

    @property
    def lists(self) -> tuple[Mapping[int, int], ...]:
        """One register list for each vCPU."""
        return self.fingerprint.cpus

    @property
    def end(self) -> End:
        """It as one end of a move. Raises BadStream where a description does not fit its bytes."""
        if self.saved is None:
            return end_of(self.fingerprint, self.text)
        from armferry.ends.guest import guest_end
        from armferry.hosts.fingerprints.naming import naming

        with naming(self.text):
            return guest_end(
                self.text,
                self.saved.machine,
                self.saved.cpus,
                self.fingerprint.devices,
                fresh=self.saved.fresh,
                sections=self.saved.sections,
                memory=self.saved.blocks or UNKNOWN,
                configuration=self.saved.configuration or UNKNOWN,
            )
