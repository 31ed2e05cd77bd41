"use strict";
document.documentElement.classList.add("scripted");
const search = document.getElementById("search");
const found = document.getElementById("found");
const rows = [...document.querySelectorAll("[data-search]")];
function seek() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  found.textContent = words.length ? `${shown} of ${rows.length} entries` : "";
}
search.addEventListener("input", seek);
document.addEventListener("keydown", (event) => {
  const typing = event.target === search;
  if (event.key === "/" && !typing) { event.preventDefault(); search.focus(); return; }
  if (event.key === "Escape" && typing) { search.value = ""; seek(); search.blur(); return; }
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = steps[event.key];
  const cell = event.target.closest?.(".matrix td");
  if (!step || !cell) return;
  let row = cell.parentElement.rowIndex, column = cell.cellIndex;
  const table = cell.closest("table");
  for (;;) {
    row += step[0]; column += step[1];
    const next = table.rows[row]?.cells[column];
    if (!next || next.tagName !== "TD") return;
    const link = next.querySelector("a");
    if (link) { event.preventDefault(); link.focus(); return; }
  }
});
