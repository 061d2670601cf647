"use strict";
// The page is complete without this script, which sorts, filters, and plays one clip at a time.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column], number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.classList.contains("scale")) return;  // intervals, which the next column sorts
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = rows.some(row => typeof value(row, column) === "number");
      const first = head.dataset.first ?? (numbers ? "descending" : "ascending");
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.ariaSort === first ? second : first;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      // Rows on a split that leaks are last, whatever their numbers, and before them those without a number.
      const last = row => 2 * row.classList.contains("leaky") + (row.cells[column].textContent.trim() === "");
      body.append(...rows.slice().sort((a, b) => {
        if (last(a) !== last(b)) return last(a) - last(b);
        const x = value(a, column), y = value(b, column);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      }));
    });
  });
  const label = document.createElement("label"), input = document.createElement("input");
  label.className = "filter";
  label.append("Show only systems with ", input);
  input.type = "search";
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
  table.parentElement.before(label);
}
document.addEventListener("play", event => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
