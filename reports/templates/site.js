// Search and sort of the tables on a page. Without it the page shows the same, in its own order.
for (const table of document.querySelectorAll(".frame table")) {
  const bodies = [...table.tBodies];
  const items = bodies.length > 1 ? bodies : [...bodies[0].rows];
  if (items.length < 2) continue;
  if (items.length > 8) {
    const field = document.createElement("input");
    field.type = "search";
    field.className = "find";
    field.placeholder = "Find";
    field.setAttribute("aria-label", "Find in " + table.parentElement.getAttribute("aria-label"));
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      for (const item of items) item.hidden = !item.textContent.toLowerCase().includes(wanted);
    });
    table.parentElement.before(field);
  }
  const valueOf = (item, column) => {
    const row = item.rows ? item.rows[0] : item;
    const text = (row.cells[column] || row).textContent.trim();
    const number = parseFloat(text.replaceAll(",", "").replace("\u2212", "-"));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = items.map((item) => [valueOf(item, column), item]);
      keyed.sort(([a], [b]) => {
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return down ? -order : order;
      });
      for (const [, item] of keyed) item.parentElement.append(item);
      if (table.tFoot) table.append(table.tFoot);
    });
  });
}
