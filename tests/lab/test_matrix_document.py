"""docs/kvm-matrix.md is made of the data file alone."""

import json
from typing import Any

from armferry.lab.matrix_document import matrix_document, rows_text

OLD, NEW = "6.12.117+deb13 neoverse-n1 10.0.13", "6.17.13+deb13 neoverse-n1 10.0.13"


def rows() -> dict[str, Any]:
    def move(source: str, there: str, loads: bool, message: int, risk: str, *named: str) -> Any:
        return {
            "source": source,
            "destination": there,
            "machine": "virt-7.2",
            "stock": {"loads": loads, "message": message, "culprits": []},
            "verdict": "works-with-policy",
            "running": {"risk": risk, "named": list(named)},
            "ferried": True,
            "faults": [],
        }

    return {
        "A matrix": {
            "format": "armferry-matrix-rows",
            "version": 1,
            "messages": ["", "load of migration failed"],
            "moves": [
                move(OLD, NEW, True, 0, "lossless"),
                move(NEW, OLD, False, 1, "guest-visible", "A: cap", "B: cap", "C: cap", "D: cap"),
            ],
        }
    }


def test_the_data_file_has_a_line_for_each_move_and_reads_back() -> None:
    text = rows_text(rows())
    assert json.loads(text) == rows()
    assert sum('"source"' in line for line in text.splitlines()) == 2


def test_the_document_counts_and_names() -> None:
    lines = list(matrix_document(rows(), {"A matrix": "a.svg"}))
    assert (
        "Of 2 moves, stock QEMU loads 1; ferried by armferry, 2 load. For a guest that runs: "
        "guest-visible 1, lossless 1. What was predicted and what happened part in 0."
    ) in lines
    assert "![rows from, columns to](a.svg)" in lines
    assert "| 6.12.117+deb13 | 6.17.13+deb13 | 1 of 1 | lossless | - |" in lines
    assert (
        "| 6.17.13+deb13 | 6.12.117+deb13 | 0 of 1 | guest-visible | A: cap, B: cap, C: cap and 1 "
        "more |"
    ) in lines
    assert lines[lines.index("once:") + 2 :][:3] == ["```", "load of migration failed", "```"]
