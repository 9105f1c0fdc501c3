// The board: buttons that sort, selects that filter, and an address that remembers both choices. Nothing else.
"use strict";
(() => {
  const table = document.getElementById("entries");
  const form = document.getElementById("filters");
  if (!table || !form) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const fields = [...form.elements].filter((field) => field.name);
  const nothing = document.getElementById("nothing");
  const compareText = new Intl.Collator("en", { numeric: true }).compare;

  const key = (row, column) => row.cells[column].dataset.value;

  function sort(column, direction) {
    const kind = heads[column].dataset.sort;
    const sign = direction === "descending" ? -1 : 1;
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is undefined comes last, either way
      return sign * (kind === "number" ? Number(x) - Number(y) : compareText(x, y));
    });
    body.append(...sorted);
    heads.forEach((head, place) => {
      if (head.dataset.sort) head.setAttribute("aria-sort", place === column ? direction : "none");
    });
  }

  function filter() {
    const chosen = fields.filter((field) => field.value.trim() !== "");
    let shown = 0;
    for (const row of rows) {
      row.hidden = !chosen.every((field) =>
        field.name === "name"
          ? row.dataset.name.toLowerCase().includes(field.value.trim().toLowerCase())
          : row.dataset[field.name] === field.value
      );
      shown += row.hidden ? 0 : 1;
    }
    const all = Number(form.querySelector("output").dataset.all);
    form.querySelector("output").textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
    nothing.hidden = shown > 0;
  }

  function remember() {
    const state = new URLSearchParams();
    for (const field of fields) if (field.value.trim() !== "") state.set(field.name, field.value);
    const column = heads.findIndex((head) => /cending/.test(head.getAttribute("aria-sort") || ""));
    if (column > 0) state.set("sort", `${column} ${heads[column].getAttribute("aria-sort")}`);
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    if (![...state.keys()].some((name) => name === "sort" || name in form.elements)) return;
    for (const field of fields) {
      field.value = state.get(field.name) || "";
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    const [, column, direction] = /^(\d+) ((?:a|de)scending)$/.exec(state.get("sort") || "") || [];
    if (heads[column] && heads[column].dataset.sort) sort(Number(column), direction);
  }

  function showAll() {
    for (const field of fields) field.value = "";
    filter();
    remember();
  }

  heads.forEach((head, column) => {
    if (!head.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.firstChild); // its name; an axis below it stays where it is
    head.prepend(button);
    if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sort(column, head.getAttribute("aria-sort") === first ? other : first);
      remember();
    });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    filter();
    remember();
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    showAll();
  });
  nothing.querySelector("button").addEventListener("click", showAll);
  form.hidden = false;
  recall();
  filter();
})();
