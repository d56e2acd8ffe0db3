// Tables sort and filter, and boxes that scroll can be reached with the keyboard. Without scripts a page is complete.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const text = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const missing = (value) => value === "" || value === "–";
  const number = (value) => parseFloat(value.replace(/,(?=\d{3})/g, "").replace("−", "-"));
  const numeric = heads.map((_, i) => rows.every((row) => missing(text(row, i)) || /^[-+−]?\d/.test(text(row, i))));
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const previous = head.getAttribute("aria-sort");
      const ascending = previous ? previous === "descending" : !numeric[i];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const order = (a, b) => (numeric[i] ? number(a) - number(b) : a.localeCompare(b, undefined, {numeric: true}));
      body.append(...[...body.rows].sort((row, next) => {
        const a = text(row, i), b = text(next, i);
        return missing(a) || missing(b) ? missing(a) - missing(b) : order(a, b) * (ascending ? 1 : -1);
      }));
    };
  });
  if (!table.dataset.find) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  const count = document.createElement("output");
  label.className = "find";
  input.type = "search";
  label.append(table.dataset.find, input, count);
  table.parentElement.before(label);
  const words = rows.map((row) => heads.map((_, i) => (numeric[i] ? "" : row.cells[i].textContent)).join(" "));
  const find = () => {
    const query = input.value.trim().toLowerCase();
    rows.forEach((row, i) => { row.hidden = !words[i].toLowerCase().includes(query); });
    const visible = rows.filter((row) => !row.hidden).length;
    count.value = query ? `${visible} of ${rows.length} rows` : "";
  };
  input.oninput = find;
  find();
}
const focusScrolling = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    scrolls ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
  }
};
addEventListener("resize", focusScrolling);
document.addEventListener("toggle", focusScrolling, true);
focusScrolling();
