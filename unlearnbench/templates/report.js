"use strict";
(() => {
  const data = JSON.parse(document.getElementById("item-data").textContent);
  const [ID, GROUP, CAUSE, FAMILY, FATES, BEFORE, CORRECT, SOLVED, CONVERTED, PROMPT, ANSWER, SOLUTION, TEXTS] = Array(13).keys();
  const PAGE = 25;
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const ones = (bits) => [...bits].filter((bit) => bit === "1").length;
  const browser = document.getElementById("browse");
  browser.replaceChildren();

  // --- filters
  const filters = make("div", null, { class: "filters" });
  const select = (name, options) => {
    const label = make("label", name), choice = make("select");
    choice.append(make("option", "all", { value: "" }));
    for (const [value, text] of options) choice.append(make("option", text, { value }));
    choice.addEventListener("change", () => show(PAGE));
    label.append(choice);
    if (options.length > 1) filters.append(label);
    return choice;
  };
  const numbered = (names) => names.map((name, place) => [String(place), name]);
  const group = select("group", numbered(data.groups));
  const cause = select("cause", numbered(data.causes));
  const fate = select("fate, any seed", Object.entries(data.fates));
  const hits = select("seeds solved", [...Array(data.seeds.length + 1).keys()].map((n) => [String(n), `${n} of ${data.seeds.length}`]));
  const label = make("label", "search id, family, prompt, answer"), search = make("input", null, { type: "search" });
  search.addEventListener("input", () => show(PAGE));
  label.append(search);
  filters.append(label);
  const status = make("p", "", { class: "note", role: "status" });
  const scroll = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "items" });
  const table = make("table"), head = make("thead"), line = make("tr"), body = make("tbody");
  const columns = ["item", "group", "family", "before", "after, by seed", "solved", "converted"].concat(data.rows.some((row) => row[FATES]) ? ["fates"] : []);
  columns.forEach((name, place) => line.append(make("th", name, { scope: "col", class: `${place < 3 ? "word" : ""} ${name === "group" ? name : ""}`.trim() })));
  head.append(line); table.append(head, body); scroll.append(table);
  const more = make("button", "Show more", { type: "button" });
  browser.append(filters, status, scroll, more);
  if (data.rows.some((row) => row[GROUP] === 0)) group.value = data.groups.includes("unlearnable") ? String(data.groups.indexOf("unlearnable")) : "";

  // --- rows
  const percent = (value) => value === null || value === undefined ? "–" : (100 * value).toFixed(0);
  const matches = (row) => {
    if (group.value && row[GROUP] !== Number(group.value)) return false;
    if (cause.value && row[CAUSE] !== Number(cause.value)) return false;
    if (fate.value && !row[FATES].includes(fate.value)) return false;
    if (hits.value && (row[SOLVED] === "" || ones(row[SOLVED]) !== Number(hits.value))) return false;
    const wanted = search.value.trim().toLowerCase();
    return !wanted || [row[ID], data.families[row[FAMILY]], row[PROMPT], row[ANSWER]].some((text) => text.toLowerCase().includes(wanted));
  };
  const passage = (parent, title, text) => { if (text) parent.append(make("h4", title), make("pre", text)); };
  const detail = (row) => {
    const line = make("tr", null, { class: "opened" }), cell = make("td", null, { colspan: String(columns.length) });
    passage(cell, "Problem", row[PROMPT]);
    passage(cell, "Answer", row[ANSWER]);
    passage(cell, "Reference solution", row[SOLUTION]);
    for (const [right, title] of [[1, "Right completions"], [0, "Wrong completions"]]) {
      const texts = row[TEXTS].filter((of) => of[0] === right);
      if (texts.length) cell.append(make("h4", title));
      for (const [, seed, step, reason, text] of texts) {
        const where = step === null ? `seed ${seed}, after training` : `seed ${seed}, step ${step}`;
        const told = make("p", `${where}: `, { class: "meta" });
        told.append(make("span", reason || (right ? "right" : "wrong"), { class: right ? "right" : "wrong" }));
        cell.append(told, make("pre", text));
      }
    }
    if (!row[TEXTS].length) cell.append(make("p", "No completions are kept in this page; see the run's rollouts.", { class: "note" }));
    line.append(cell);
    return line;
  };
  const open = (button, row) => {
    const line = button.closest("tr"), shown = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!shown));
    if (shown) line.nextSibling.remove(); else line.after(detail(row));
  };
  const draw = (row) => {
    const line = make("tr"), first = make("td", null, { class: "word" });
    const button = make("button", row[ID], { type: "button", "aria-expanded": "false" });
    button.addEventListener("click", () => open(button, row));
    first.append(button);
    const of = data.seeds.length, core = row[CONVERTED] !== "";
    const cells = [data.groups[row[GROUP]], data.families[row[FAMILY]], percent(row[BEFORE]),
      row[CORRECT].map((correct) => percent(correct / data.samples)).join(" · ") || "–",
      row[SOLVED] === "" ? "–" : `${ones(row[SOLVED])} of ${of}`, core ? `${ones(row[CONVERTED])} of ${of}` : "–", row[FATES]];
    line.append(first);
    cells.slice(0, columns.length - 1).forEach((text, place) => line.append(make("td", text, { class: ["word group", "word"][place] || "" })));
    return line;
  };
  const rest = document.querySelector('a[href="items.csv"]') ? "items.csv" : "counts.parquet"; // beside a run's page, and an entry's
  let shown = PAGE;
  const show = (most) => {
    shown = most;
    const found = data.rows.filter(matches);
    body.replaceChildren(...found.slice(0, most).map(draw));
    const left = data.all - data.rows.length;
    status.textContent = `${found.length} ${found.length === 1 ? "item" : "items"}` + (found.length > most ? `, the first ${most} shown` : "") +
      "; rates in %. Open an item for its text and completions." + (left ? ` ${left} more items are in ${rest} alone.` : "");
    more.hidden = found.length <= most;
  };
  more.addEventListener("click", () => show(shown + 200));
  const reset = (text) => { for (const choice of [group, cause, fate, hits]) choice.value = ""; search.value = text; show(PAGE); };
  document.addEventListener("click", (event) => {
    const family = event.target.closest("[data-family]"), mark = event.target.closest("[data-item]");
    if (family) reset(family.dataset.family);
    if (mark) {
      reset(mark.dataset.item);
      const button = [...body.querySelectorAll("button")].find((of) => of.textContent === mark.dataset.item);
      if (button) { open(button, data.rows.find((row) => row[ID] === mark.dataset.item)); button.scrollIntoView({ block: "center" }); button.focus(); }
    }
  });
  for (const mark of document.querySelectorAll("[data-item]"))
    mark.append(Object.assign(document.createElementNS("http://www.w3.org/2000/svg", "title"), { textContent: mark.dataset.item }));
  show(PAGE);

  // --- the sentence to quote
  const copy = document.getElementById("copy"), sentence = document.getElementById("sentence");
  if (!copy) return;
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const told = document.getElementById("copied");
    try { await navigator.clipboard.writeText(sentence.textContent); } catch {
      const range = document.createRange();
      range.selectNodeContents(sentence);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    told.textContent = "Copied.";
  });
})();
