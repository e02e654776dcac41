// Sort a table, follow one run through the charts, unfold for print. The page reads well without.
document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, i) => {
    const cell = row.cells[i], value = cell.dataset.value;
    return value !== undefined ? Number(value) : /\w/.test(cell.textContent) ? cell.textContent : null;
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" || (i > 0 && !head.hasAttribute("aria-sort"));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map(row => [key(row, i), row]);
    rows.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1
      : (down ? -1 : 1) * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true})));
    body.append(...rows.map(([, row]) => row));
  }));
});
document.querySelectorAll(".legend li").forEach(item => {
  const charts = document.querySelectorAll(".together");
  const mark = on => charts.forEach(chart => {
    chart.classList.toggle("dim", on);
    chart.querySelectorAll(".s" + item.dataset.style).forEach(part => part.classList.toggle("chosen", on));
  });
  item.addEventListener("pointerenter", () => mark(true));
  item.addEventListener("pointerleave", () => mark(false));
});
const unfold = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", unfold);
unfold();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
