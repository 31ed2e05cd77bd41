"""What a libvirt domain's XML says of its CPU and machine.

Knows the elements that decide which registers a guest has (libvirt's formatdomain documentation):
the machine type, `features/gic`, `features/pmu`, `cpu` with its features, and words for QEMU's own
command line, which may say anything. What libvirt makes of each is held against its own
`domxml-to-native` in a test. Refuses to know the rest. Imports next to nothing: libvirt's hook
waits for it.
"""

from xml.parsers import expat

__all__ = ["DomainFacts", "UnreadableDomain", "read_domain"]

_CPU_MODES = {"host-passthrough": "host", "maximum": "max"}
_DEEPEST = 32
_LONGEST = 4096  # letters of a name, a model, a path; libvirt itself allows no longer path
_DECIDING = ("cpu", "machine", "M", "accel", "enable-kvm")
_NOT_QEMUS = ("x-mig-hidden-regs", "x-mig-safe-missing-regs", "kvm-psci-version")
_SWITCH = {"require": "on", "force": "on", "disable": "off", "forbid": "off"}


class UnreadableDomain(Exception):
    """A text that is not the XML of a domain."""


class DomainFacts:
    """What one domain runs on.

    `machine` is the text after QEMU's -machine as far as it decides on registers: the type and its
    gic-version. `cpu` is the text after -cpu, empty where the XML does not determine it.
    `accelerator` is `tcg` or `kvm`, `emulator` the path of the QEMU.
    """

    __slots__ = ("accelerator", "cpu", "emulator", "machine", "name", "uuid")

    def __init__(
        self, name: str, uuid: str, machine: str, cpu: str, accelerator: str, emulator: str
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.machine = machine
        self.cpu = cpu
        self.accelerator = accelerator
        self.emulator = emulator

    @property
    def kind(self) -> str:
        """What must be equal on both hosts for a move: machine, CPU, accelerator."""
        return f"{self.machine} {self.cpu} {self.accelerator}"


def read_domain(xml: str) -> DomainFacts | None:
    """The facts of an aarch64 domain; None for any other. Raises UnreadableDomain.

    `xml` is a domain, or libvirt's status file around one.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_entities
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise UnreadableDomain(f"not the XML of a domain: {error}") from None
    return reader.facts()


def _refuse_entities(*_: object) -> None:
    """libvirt writes no document type; entities that grow without end come with one."""
    raise UnreadableDomain("not the XML of a domain: it declares a document type")


class _Reader:
    """Collects by path below the domain element, no deeper and no more than a domain has."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._texts: dict[str, str] = {}
        self._attributes: dict[str, dict[str, str]] = {}
        self._features: dict[str, str] = {}
        self._determined = True
        self._inside = False

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self._inside:
            if name == "domain":
                self._inside = True
                self._attributes[""] = attributes
            return
        self._path.append(name)
        if len(self._path) > _DEEPEST or len(name) > _LONGEST:
            raise UnreadableDomain(
                f"not the XML of a domain: more than {_DEEPEST} elements deep, or a name of more "
                f"than {_LONGEST} letters"
            )
        where = "/".join(self._path)
        if where == "cpu/feature":
            switch = _SWITCH.get(attributes.get("policy", "require"))
            if switch is not None:
                self._features[attributes.get("name", "")] = switch
        elif where == "features/pmu":
            self._features["pmu"] = attributes.get("state", "on")
        elif name.endswith(":arg") and _decides(attributes.get("value", "")):
            self._determined = False
        self._attributes.setdefault(where, attributes)

    def end(self, name: str) -> None:
        if self._path:
            self._path.pop()
        elif name == "domain":
            self._inside = False

    def text(self, data: str) -> None:
        where = "/".join(self._path)
        if self._inside and where in ("name", "uuid", "cpu/model", "devices/emulator"):
            self._texts[where] = self._texts.get(where, "") + data
            if len(self._texts[where]) > _LONGEST:
                raise UnreadableDomain(f"its {where} is longer than {_LONGEST} letters")

    def facts(self) -> DomainFacts | None:
        about = self._attributes.get("os/type", {})
        if about.get("arch") != "aarch64" or "devices/emulator" not in self._texts:
            return None
        machine = about.get("machine", "")
        gic = self._attributes.get("features/gic", {}).get("version")
        return DomainFacts(
            self._texts.get("name", ""),
            self._texts.get("uuid", ""),
            f"{machine},gic-version={gic}" if gic else machine,
            self._cpu(),
            "kvm" if self._attributes[""].get("type") == "kvm" else "tcg",
            self._texts["devices/emulator"],
        )

    def _cpu(self) -> str:
        mode = self._attributes.get("cpu", {}).get("mode", "custom")
        model = _CPU_MODES.get(mode, "")
        if mode == "custom":
            model = self._texts.get("cpu/model", "").strip()
        if not model or not self._determined:
            return ""
        features = dict(self._features)
        if any(_is_length(name) and switch == "on" for name, switch in features.items()):
            features.setdefault("sve", "on")  # as libvirt adds it
        return ",".join([model, *(f"{name}={features[name]}" for name in sorted(features))])


def _is_length(name: str) -> bool:
    """Whether a feature is a vector length: sve512."""
    return name.startswith("sve") and name[3:].isdigit()


def _decides(word: str) -> bool:
    """Whether a word of QEMU's command line may change the machine or the CPU."""
    if word.lstrip("-") in _DECIDING and word.startswith("-"):
        return True
    return "arm-cpu" in word and not any(name in word for name in _NOT_QEMUS)
