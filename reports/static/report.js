for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const shown = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const missing = (value) => value === "" || value === "–";
  const number = (value) => parseFloat(value.replace(/,(?=\d{3})/g, "").replace("−", "-"));
  const numeric = heads.map((_, i) => rows.every((row) => missing(shown(row, i)) || /^[-+−]?\d/.test(shown(row, i))));
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric[i];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => (numeric[i] ? number(a) - number(b) : a.localeCompare(b, undefined, {numeric: true}));
      body.append(...[...body.rows].sort((one, other) => {
        const a = shown(one, i), b = shown(other, i);
        return missing(a) || missing(b) ? missing(a) - missing(b) : order(a, b) * (up ? 1 : -1);
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
    const wanted = input.value.trim().toLowerCase();
    rows.forEach((row, i) => { row.hidden = !words[i].toLowerCase().includes(wanted); });
    const left = rows.filter((row) => !row.hidden).length;
    count.value = wanted ? `${left} of ${rows.length} rows` : "";
  };
  input.oninput = find;
  find();
}
const reach = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    scrolls ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
  }
};
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
reach();
