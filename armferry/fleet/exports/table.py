"""The matrix as CSV: a line for each pair of groups."""

import csv
import io

from armferry.fleet.questions import Matrix

__all__ = ["matrix_csv"]

_COLUMNS = (
    *("from", "to", "from_hosts", "to_hosts", "answer", "risk", "stock", "one_way"),
    *("conditions", "why"),
)


def matrix_csv(matrix: Matrix) -> str:
    """RFC 4180, with a line of headings; conditions are joined by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for (source, destination), group in matrix.cells.items():
        cell = group.cell
        writer.writerow(
            (
                source,
                destination,
                matrix.groups[source],
                matrix.groups[destination],
                cell.answer.value,
                str(cell.risk),
                cell.stock,
                "yes" if matrix.one_way(source, destination) else "no",
                "; ".join(map(str, cell.conditions)),
                cell.why,
            )
        )
    return out.getvalue()
