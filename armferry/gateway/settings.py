"""The migration capabilities and parameters of a running QEMU, changed for one move.

Knows what was changed and puts it back; refuses to know what it is changed for
(`armferry.gateway.migrate`). Names as in qapi/migration.json.
"""

import contextlib
from collections.abc import Iterable, Mapping

from armferry.hosts.qmp.client import Monitor, MonitorFault

__all__ = ["Settings"]


class Settings:
    """What one QEMU's settings were when this was made. Raises MonitorFault."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._capabilities: dict[str, bool] = {
            one["capability"]: one["state"] for one in monitor.execute("query-migrate-capabilities")
        }
        self._parameters: dict[str, object] = monitor.execute("query-migrate-parameters")
        self._changed_capabilities: tuple[str, ...] = ()
        self._changed_parameters: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The monitor's address, for messages."""
        return self._monitor.address

    @property
    def capabilities(self) -> frozenset[str]:
        """Those that were on."""
        return frozenset(name for name, on in self._capabilities.items() if on)

    @property
    def credentials(self) -> str:
        """The id of the TLS credentials that migrations use; empty without TLS."""
        return str(self._parameters.get("tls-creds") or "")

    def change(self, capabilities: Iterable[str], parameters: Mapping[str, object]) -> None:
        """Turns `capabilities` on and sets `parameters`. Raises CommandRefused, MonitorFault."""
        wanted = dict.fromkeys(capabilities, True)
        self._set_capabilities(wanted)
        self._changed_capabilities = tuple(
            name for name in wanted if not self._capabilities.get(name, False)
        )
        if parameters:
            self._monitor.execute("migrate-set-parameters", parameters)
            self._changed_parameters = tuple(parameters)

    def put_back(self) -> None:
        """Sets what was changed as it was before; a QEMU that is gone or busy keeps it."""
        with contextlib.suppress(MonitorFault):
            if self._changed_capabilities:
                self._set_capabilities(dict.fromkeys(self._changed_capabilities, False))
            before = {
                name: self._parameters[name]
                for name in self._changed_parameters
                if name in self._parameters
            }
            if before:
                self._monitor.execute("migrate-set-parameters", before)

    def _set_capabilities(self, states: Mapping[str, bool]) -> None:
        on = [{"capability": name, "state": state} for name, state in states.items()]
        self._monitor.execute("migrate-set-capabilities", {"capabilities": on})
