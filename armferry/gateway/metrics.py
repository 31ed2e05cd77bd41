"""What the gateway has done, for Prometheus.

The client library is imported when metrics are asked for and not before; nothing else of
armferry needs it.
"""

from collections.abc import Callable

from armferry.gateway.address import TcpAddress
from armferry.gateway.errors import GatewayError, NetworkFault
from armferry.gateway.report import TransferReport

__all__ = ["serve_metrics"]

_STATE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


def serve_metrics(
    address: TcpAddress, running: Callable[[], int]
) -> Callable[[TransferReport], None]:
    """Serves /metrics on `address`; the function returned takes in each outcome.

    `running` counts the moves that have not ended. Raises GatewayError or NetworkFault.
    """
    try:
        import prometheus_client as prometheus
    except ImportError:
        raise GatewayError(
            "--metrics needs the Python package prometheus-client: pip install armferry[metrics]"
        ) from None
    registry = prometheus.CollectorRegistry()
    moves = prometheus.Counter(
        "armferry_moves", "Moves that ended", ["outcome", "mode"], registry=registry
    )
    moved = prometheus.Counter("armferry_bytes", "Bytes carried", ["direction"], registry=registry)
    held = prometheus.Histogram(
        "armferry_state_seconds",
        "Seconds from the last byte of device state that came to the first that could be sent",
        buckets=_STATE_BUCKETS,
        registry=registry,
    )
    registers = prometheus.Counter(
        "armferry_registers", "Registers that were not simply matched", ["class"], registry=registry
    )
    prometheus.Gauge("armferry_moves_running", "Moves under way", registry=registry).set_function(
        running
    )
    try:
        prometheus.start_http_server(address.port, address.host, registry=registry)
    except OSError as error:
        raise NetworkFault(f"{address}: cannot serve metrics: {error.strerror}") from error

    def take_in(report: TransferReport) -> None:
        moves.labels(report.ending.value, report.mode).inc()
        moved.labels("forward").inc(report.bytes_forward)
        moved.labels("back").inc(report.bytes_back)
        if report.state_bytes:
            held.observe(report.decision_seconds)
        for group, count in report.classes.items():
            registers.labels(group).inc(count)

    return take_in
