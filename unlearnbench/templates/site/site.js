// The board: filters, tabs, buttons that sort, a picture, two rows side by side, and an address that remembers it all.
"use strict";
(() => {
  const table = document.getElementById("entries");
  const form = document.getElementById("filters");
  if (!table || !form) return;
  const body = table.querySelector("tbody.rows");
  const rows = [...body.rows];
  const controls = [...table.querySelector("tbody.controls").rows];
  const heads = [...table.tHead.rows[0].cells];
  const fields = ["split", "track", "budget", "tier", "edition", "name"];
  const output = form.querySelector("output");
  const nothing = document.getElementById("nothing");
  const fold = document.getElementById("fold");
  const elsewhere = document.getElementById("elsewhere");
  const pair = document.getElementById("pair");
  const hero = document.getElementById("hero");
  const canvas = hero.querySelector(".canvas");
  const compareText = new Intl.Collator("en", { numeric: true }).compare;
  let unfolded = false;
  let picked = []; // at most two rows

  const value = (name) => {
    const set = form.elements[name].value.trim();
    return name === "track" && set === "all" ? "" : set;
  };
  const key = (row, column) => row.cells[column].dataset.value;
  const root = (number) => Math.sign(number) * Math.sqrt(Math.abs(number));
  const parsed = (text) => (text ? text.split(" ").map(Number) : []);
  const signed = (share) => {
    const shown = (100 * Math.abs(share)).toFixed(1);
    return (shown === "0.0" ? "" : share > 0 ? "+" : "\u2212") + shown;
  };
  const link = (row) => row.cells[1].querySelector("a");

  function add(parent, tag, attributes = {}, text = "") {
    const made =
      parent.namespaceURI.endsWith("svg") || tag === "svg"
        ? document.createElementNS("http://www.w3.org/2000/svg", tag)
        : document.createElement(tag);
    for (const [name, of] of Object.entries(attributes)) made.setAttribute(name, of);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  // --- rows -------------------------------------------------------------------------------------------------------

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

  const matches = (row, names) =>
    names.every((name) => {
      const wanted = value(name);
      if (wanted === "") return true;
      return name === "name"
        ? row.dataset.name.toLowerCase().includes(wanted.toLowerCase())
        : row.dataset[name] === wanted;
    });

  function filter() {
    const found = rows.filter((row) => matches(row, fields));
    const folded = found.filter((row) => "nothing" in row.dataset);
    const foldable = value("name") === "" && folded.length > 0 && folded.length < found.length;
    const pooled = value("edition") === "" && found.some((row) => row.dataset.edition === "pooled");
    const seen = new Set(foldable && !unfolded ? found.filter((row) => !("nothing" in row.dataset)) : found);
    for (const row of rows) row.hidden = !seen.has(row);
    for (const row of controls)
      row.hidden =
        (pooled && row.dataset.edition !== "pooled") ||
        !["budget", "tier", "edition", "split"].every((name) =>
          found.some((of) => of.dataset[name] === row.dataset[name])
        ) || !matches(row, ["budget", "tier", "edition", "split"]);
    const all = Number(output.dataset.all);
    output.textContent = found.length === all ? `${all} rows` : `${found.length} of ${all} rows`;
    nothing.hidden = found.length > 0;
    pointElsewhere();
    fold.hidden = !foldable;
    const button = fold.querySelector("button");
    button.setAttribute("aria-expanded", String(unfolded));
    button.textContent = `${unfolded ? "Fold" : "Show"} what converts nothing (${folded.length})`;
    // A column that says the same in every row has no place beside the tabs and filters that say it.
    const fixed = { 2: value("track"), 3: value("budget"), 10: value("tier") && value("edition") };
    for (const [column, chosen] of Object.entries(fixed))
      for (const row of [...rows, ...controls, table.tHead.rows[0]]) row.cells[column].hidden = chosen !== "";
    fit(
      [...seen],
      controls.filter((row) => !row.hidden)
    );
    draw();
  }

  // Entries of the track that only the chosen tier hides, a button for each of the other tiers.
  function pointElsewhere() {
    const rest = ["split", "track", "budget", "name"];
    const tiers = {};
    for (const row of rows)
      if (value("tier") !== "" && row.dataset.tier !== value("tier") && row.dataset.edition === "pooled")
        if (matches(row, rest)) tiers[row.dataset.tier] = (tiers[row.dataset.tier] || 0) + 1;
    elsewhere.replaceChildren();
    elsewhere.hidden = Object.keys(tiers).length === 0;
    add(elsewhere, "span", {}, "In other tiers: ");
    for (const [tier, count] of Object.entries(tiers)) {
      const button = add(elsewhere, "button", { type: "button", class: "plain" }, `${count} ${tier}`);
      button.addEventListener("click", () => {
        choose("tier", tier);
        choose("edition", "pooled");
        changed();
      });
      elsewhere.append(" ");
    }
  }

  // The bars of the table on an axis that fits the rows shown (board_page.Scale does the same for all rows). A control
  // that lies beyond it, as the ceiling mostly does, has its number alone.
  function fit(shown, pinned) {
    const values = [0, ...shown.flatMap((row) => parsed(row.dataset.gain))];
    const low = Math.floor(Math.min(...values) * 10 + 1e-9) / 10;
    const high = Math.max(Math.ceil(Math.max(...values) * 10 - 1e-9) / 10, 0.1);
    const width = root(high) - root(low);
    const at = (number) => `${(2.5 + (95 * (root(number) - root(low))) / width).toFixed(2)}%`;
    const place = (element, name, number) => element && element.setAttribute(name, at(number));
    for (const row of [...shown, ...pinned]) {
      const [gain, from, to] = parsed(row.dataset.gain);
      const bar = row.querySelector(".gain svg");
      for (const end of ["x1", "x2"]) place(bar.querySelector(".zero"), end, 0);
      if (gain !== undefined) {
        place(bar.querySelector("circle"), "cx", gain);
        bar.querySelector("circle").setAttribute("visibility", gain < low || gain > high ? "hidden" : "visible");
      }
      if (from !== undefined) place(bar.querySelector(".ends"), "x1", from);
      if (to !== undefined) place(bar.querySelector(".ends"), "x2", to);
    }
    const axis = table.querySelector("svg.axis");
    axis.replaceChildren();
    for (const tick of new Set([low, 0, high])) {
      if (tick !== 0 && 3 * Math.abs(root(tick)) <= width) continue; // would run into 0
      const anchor = tick === low ? "start" : tick === high ? "end" : "middle";
      const text = tick === 0 ? "0" : signed(tick).replace(".0", "");
      add(axis, "text", { x: at(tick), y: 12, "text-anchor": anchor }, text);
    }
  }

  // --- picture ----------------------------------------------------------------------------------------------------

  // Places of shares between two pixels on a root scale, and the ticks that have room.
  function rootScale(values, from, to, room) {
    const [low, high] = [Math.min(0, ...values), Math.max(0.01, ...values)];
    const at = (share) => from + ((root(share) - root(low)) / (root(high) - root(low))) * (to - from);
    const ticks = [];
    for (const tick of [0, 1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, -1, -0.5, -0.25, -0.1, -0.05, -0.01])
      if (tick >= low && tick <= high && ticks.every((other) => Math.abs(at(other) - at(tick)) >= room))
        ticks.push(tick);
    return { at, ticks };
  }

  function mark(parent, row, x, y) {
    if ("forgets" in row.dataset)
      return add(parent, "path", { class: "forgets", d: `M${x - 5} ${y - 5}l10 10m-10 0l10-10` });
    const tone = "claim" in row.dataset ? "claim" : "no";
    if (row.dataset.budget === "1x") return add(parent, "circle", { class: tone, cx: x, cy: y, r: 5 });
    return add(parent, "rect", { class: tone, x: x - 5, y: y - 5, width: 10, height: 10 });
  }

  // A mark with its interval, at `places` of value, lower and upper end; a click opens the entry's page.
  function entry(parent, row, numbers, place) {
    const group = add(parent, "g", { class: "entry" });
    const [first, from, to] = numbers.map(place);
    if (to) {
      const tone = "claim" in row.dataset ? "claim" : "no";
      add(group, "line", { class: `ends ${tone}`, x1: from[0], y1: from[1], x2: to[0], y2: to[1] });
    }
    mark(group, row, ...first);
    const interval = to ? ` (${signed(numbers[1])} to ${signed(numbers[2])})` : "";
    add(
      group,
      "title",
      {},
      `${link(row).textContent}, ${row.dataset.track}, ${row.dataset.budget}: ${signed(numbers[0])}${interval}`
    );
    group.addEventListener("click", () => link(row).click());
  }

  // Text above a mark where no other text is yet; left out where there is no room.
  function label(drawing, taken, text, x, y, width) {
    const half = 3.2 * text.length;
    const middle = Math.min(Math.max(x, half + 46), width - half - 2);
    for (let line = 0; line < 7 && y - 13 * line > 10; line++) {
      const box = [middle - half, y - 13 * line - 11, middle + half, y - 13 * line + 2];
      if (taken.some((of) => box[0] < of[2] && of[0] < box[2] && box[1] < of[3] && of[1] < box[3])) continue;
      taken.push(box);
      if (line > 0) add(drawing, "line", { class: "leader", x1: x, x2: middle, y1: y + 4, y2: y - 13 * line + 3 });
      add(drawing, "text", { class: "label", x: middle, y: y - 13 * line, "text-anchor": "middle" }, text);
      return;
    }
  }

  const titles = {
    gain: "Conversion gain over GRPO re-run, points (root scale)",
    frontier: "Frontier gain over GRPO re-run, points (root scale); colours say what conversion does",
    easy: "Easy problems lost, % (root scale); dashed: 5 %; colours say what conversion does",
    flops: "Conversion gain, points (root scale), by training FLOPs of a seed (log scale); budgets of a method joined"
  };

  function draw() {
    const picture = value("picture") || "gain";
    const numbers = (row) => parsed(row.dataset[picture === "flops" ? "gain" : picture]);
    const drawn = rows.filter(
      (row) =>
        matches(
          row,
          fields.filter((name) => name !== "track")
        ) &&
        numbers(row).length &&
        (picture !== "flops" || row.dataset.flops)
    );
    const tracks = [...form.elements.track].map((tab) => tab.value).filter((track) => track !== "all");
    const groups = tracks
      .map((track) => [
        track,
        drawn.filter((row) => row.dataset.track === track).sort((a, b) => numbers(b)[0] - numbers(a)[0])
      ])
      .filter(([, found]) => found.length);
    canvas.replaceChildren();
    add(canvas, "p", { class: "note" }, drawn.length ? titles[picture] : "No entry to draw.");
    if (!drawn.length) return;
    const width = Math.max(canvas.clientWidth, 240);
    const said = groups.map(([track, found]) => {
      const beat = found.filter((row) => "claim" in row.dataset).length;
      const first = `${link(found[0]).textContent} ${signed(numbers(found[0])[0])}`;
      return `${track}: ${found.length}, ${beat} beat both nulls, first ${first}`;
    });
    const drawing = add(canvas, "svg", {
      role: "img",
      "aria-label": `${titles[picture]}. Entries by track. ${said.join("; ")}.`
    });
    const scene = { drawing, width, groups, numbers, picture, values: drawn.flatMap(numbers) };
    const height = picture === "flops" ? drawCost(scene, drawn) : width < 620 ? drawRows(scene) : drawColumns(scene);
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", height);
  }

  const tickText = (picture, tick) =>
    picture === "easy" ? `${100 * tick}` : tick ? signed(tick).replace(".0", "") : "0";

  // Horizontal lines at the ticks of the values, and the line of 5 % where easy items are drawn.
  function gridOf({ drawing, width, picture }, scale) {
    for (const tick of scale.ticks) {
      add(drawing, "line", {
        class: tick ? "grid" : "zero",
        x1: 44,
        x2: width,
        y1: scale.at(tick),
        y2: scale.at(tick)
      });
      add(drawing, "text", { x: 38, y: scale.at(tick) + 4, "text-anchor": "end" }, tickText(picture, tick));
    }
    if (picture === "easy")
      add(drawing, "line", { class: "least", x1: 44, x2: width, y1: scale.at(0.05), y2: scale.at(0.05) });
  }

  function drawColumns(scene) {
    const { drawing, width, groups, numbers, values, picture } = scene;
    const [left, top, bottom] = [50, 34, 300];
    const scale = rootScale(picture === "easy" ? [...values, 0.05] : values, bottom, top, 15);
    gridOf(scene, scale);
    const room = ([track, found], pitch) => Math.max(found.length * pitch, 7 * track.length + 14);
    const whole = (pitch) => groups.reduce((sum, group) => sum + room(group, pitch), 0);
    let pitch = 34;
    while (pitch > 4 && whole(pitch) > width - left) pitch -= 0.5;
    const spare = Math.max(0, (width - left - whole(pitch)) / groups.length);
    const taken = [];
    let x = left;
    for (const group of groups) {
      const [track, found] = group;
      const own = room(group, pitch) + spare;
      const start = x + (own - found.length * pitch) / 2 + pitch / 2;
      if (x > left) add(drawing, "line", { class: "between", x1: x, x2: x, y1: top - 20, y2: bottom + 34 });
      found.forEach((row, place) => {
        const across = start + place * pitch;
        entry(drawing, row, numbers(row), (share) => [across, scale.at(share)]);
        const ends = numbers(row);
        const named = picture === "easy" ? "forgets" in row.dataset : "claim" in row.dataset || place === 0;
        if (named) {
          const budget = row.dataset.budget === "1x" ? "" : ` ${row.dataset.budget}`;
          const figure = picture === "easy" ? (100 * ends[0]).toFixed(0) : signed(ends[0]);
          const text = `${link(row).textContent}${budget} ${figure}`;
          label(drawing, taken, text, across, scale.at(Math.max(...ends)) - 9, width);
        }
      });
      add(drawing, "text", { class: "track", x: x + own / 2, y: bottom + 18, "text-anchor": "middle" }, track);
      add(drawing, "text", { x: x + own / 2, y: bottom + 33, "text-anchor": "middle" }, String(found.length));
      x += own;
    }
    return bottom + 40;
  }

  // On a phone: tracks from top to bottom, a named line per entry.
  function drawRows(scene) {
    const { drawing, width, groups, numbers, values, picture } = scene;
    const left = 118;
    const scale = rootScale(picture === "easy" ? [...values, 0.05] : values, left + 4, width - 10, 30);
    const height = groups.reduce((sum, [, found]) => sum + 24 + 15 * found.length, 26);
    for (const tick of [...scale.ticks, ...(picture === "easy" ? [0.05] : [])]) {
      const line = picture === "easy" && tick === 0.05 ? "least" : tick ? "grid" : "zero";
      add(drawing, "line", { class: line, x1: scale.at(tick), x2: scale.at(tick), y1: 18, y2: height });
    }
    for (const tick of scale.ticks)
      add(drawing, "text", { x: scale.at(tick), y: 12, "text-anchor": "middle" }, tickText(picture, tick));
    let y = 20;
    for (const [track, found] of groups) {
      add(drawing, "text", { class: "track", x: 0, y: y + 16 }, track);
      y += 24;
      for (const row of found) {
        add(
          drawing,
          "text",
          { x: left - 6, y: y + 11, "text-anchor": "end" },
          `${link(row).textContent.slice(0, 17)}${row.dataset.budget === "1x" ? "" : ` ${row.dataset.budget}`}`
        );
        const along = y + 7;
        entry(drawing, row, numbers(row), (share) => [scale.at(share), along]);
        y += 15;
      }
    }
    return height;
  }

  function drawCost(scene, drawn) {
    const { drawing, width, numbers } = scene;
    const [left, top, bottom] = [60, 34, 300];
    const scale = rootScale(
      drawn.map((row) => numbers(row)[0]),
      bottom,
      top,
      15
    );
    gridOf(scene, scale);
    const costs = drawn.map((row) => Math.log10(Number(row.dataset.flops)));
    const [low, high] = [Math.min(...costs) - 0.05, Math.max(...costs) + 0.05];
    const at = (flops) => left + ((Math.log10(flops) - low) / (high - low)) * (width - left - 24);
    let last = -Infinity;
    for (let power = Math.floor(low); power <= high; power++)
      for (let digit = 1; digit < 10; digit++) {
        const flops = digit * 10 ** power;
        if (Math.log10(flops) < low || Math.log10(flops) > high || at(flops) - last < 60) continue;
        last = at(flops);
        add(drawing, "line", { class: "grid", x1: at(flops), x2: at(flops), y1: top, y2: bottom });
        add(drawing, "text", { x: at(flops), y: bottom + 18, "text-anchor": "middle" }, `${digit}e${power}`);
      }
    const taken = [];
    const methods = {};
    for (const row of drawn) {
      const name = `${link(row).textContent} ${row.dataset.tier} ${row.dataset.edition}`;
      (methods[name] ||= []).push(row);
    }
    for (const found of Object.values(methods)) {
      const way = found.sort((a, b) => a.dataset.flops - b.dataset.flops);
      const points = way.map((row) => `${at(Number(row.dataset.flops))},${scale.at(numbers(row)[0])}`);
      if (way.length > 1) add(drawing, "polyline", { class: "way", points: points.join(" ") });
    }
    for (const row of drawn)
      entry(drawing, row, numbers(row).slice(0, 1), (share) => [at(Number(row.dataset.flops)), scale.at(share)]);
    for (const row of drawn) {
      const [gain] = numbers(row);
      const budget = row.dataset.budget === "1x" ? "" : ` ${row.dataset.budget}`;
      const text = `${link(row).textContent}${budget} ${signed(gain)}`;
      if ("claim" in row.dataset || row.dataset.budget !== "1x")
        label(drawing, taken, text, at(Number(row.dataset.flops)), scale.at(gain) - 9, width);
    }
    return bottom + 26;
  }

  // --- two rows side by side --------------------------------------------------------------------------------------

  function verdictOf(a, b) {
    const how = "(items paired, Holm\u2019s correction)";
    const same = ["track", "budget", "tier", "edition"].every((name) => a.dataset[name] === b.dataset[name]);
    if (!same || !("ranked" in a.dataset) || !("ranked" in b.dataset))
      return "These two are not ranked together: they differ in track, budget, tier or edition, or one has no rank.";
    const better = (of, other) => (other.dataset.better || "").split(" ").includes(of.dataset.id);
    for (const [one, other] of [
      [a, b],
      [b, a]
    ])
      if (better(one, other))
        return `${link(one).textContent} converts significantly more than ${link(other).textContent} ${how}.`;
    return `Neither converts significantly more than the other ${how}.`;
  }

  function showPair() {
    for (const row of rows) row.querySelector(".pick input").checked = picked.includes(row);
    pair.replaceChildren();
    pair.hidden = picked.length === 0;
    if (!picked.length) return;
    add(
      pair,
      "p",
      {},
      picked.length === 2
        ? verdictOf(...picked)
        : `${link(picked[0]).textContent} is chosen; tick another entry to compare.`
    );
    if (picked.length === 2) {
      const side = add(pair, "table");
      add(side, "caption", { class: "hidden" }, "two entries side by side");
      const top = add(add(side, "thead"), "tr");
      add(top, "th", { scope: "col" }, "Figure");
      for (const row of picked)
        add(add(top, "th", { scope: "col" }), "a", { href: link(row).getAttribute("href") }, link(row).textContent);
      const lines = add(side, "tbody");
      heads.forEach((head, column) => {
        if (column === 1) return;
        const line = add(lines, "tr");
        add(line, "th", { scope: "row" }, (head.querySelector("button") || head).textContent);
        for (const row of picked) {
          const cell = add(line, "td");
          for (const of of row.cells[column].childNodes) cell.append(of.cloneNode(true));
          for (const of of cell.querySelectorAll("svg, .pick")) of.remove();
        }
      });
    }
    const close = add(pair, "button", { type: "button" }, "Clear");
    close.addEventListener("click", () => pick([]));
  }

  function pick(chosen) {
    picked = chosen.slice(-2);
    showPair();
    remember();
  }

  // --- the address ------------------------------------------------------------------------------------------------

  function remember() {
    const state = new URLSearchParams();
    for (const name of fields) if (value(name) !== "") state.set(name, value(name));
    if (value("track") === "") state.set("track", "all");
    const column = heads.findIndex((head) => /cending/.test(head.getAttribute("aria-sort") || ""));
    if (column > 0) state.set("sort", `${column} ${heads[column].getAttribute("aria-sort")}`);
    if (value("picture") !== "gain") state.set("picture", value("picture"));
    if (unfolded) state.set("unfolded", "yes");
    if (picked.length) state.set("pair", picked.map((row) => row.dataset.key).join(" "));
    history.replaceState(null, "", `#${state}`);
  }

  function choose(name, wanted) {
    const field = form.elements[name];
    if (name === "track") field.value = [...field].some((tab) => tab.value === wanted) ? wanted : "all";
    else if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === wanted))
      field.value = wanted;
    else field.value = "";
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    if (![...state.keys()].some((name) => ["sort", "unfolded", "pair"].includes(name) || name in form.elements))
      return;
    for (const name of fields) choose(name, state.get(name) || "");
    if (state.get("picture") in titles) choose("picture", state.get("picture"));
    unfolded = state.get("unfolded") === "yes";
    const [, column, direction] = /^(\d+) ((?:a|de)scending)$/.exec(state.get("sort") || "") || [];
    if (heads[column] && heads[column].dataset.sort) sort(Number(column), direction);
    const wanted = (state.get("pair") || "").split(" ");
    picked = rows.filter((row) => wanted.includes(row.dataset.key)).slice(0, 2);
    picked.sort((a, b) => wanted.indexOf(a.dataset.key) - wanted.indexOf(b.dataset.key));
  }

  function showAll() {
    for (const name of fields) choose(name, "");
    unfolded = true;
    filter();
    remember();
  }

  // --- start ------------------------------------------------------------------------------------------------------

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
  for (const row of rows) {
    const box = add(add(row.cells[0], "label", { class: "pick" }), "input", { type: "checkbox" });
    box.setAttribute("aria-label", `compare ${link(row).textContent}, ${row.dataset.budget}, ${row.dataset.edition}`);
    box.addEventListener("change", () => pick(box.checked ? [...picked, row] : picked.filter((of) => of !== row)));
  }
  const changed = () => {
    filter();
    remember();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", changed);
  for (const tab of document.querySelectorAll(".tabs input")) tab.addEventListener("change", changed);
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    showAll();
  });
  nothing.querySelector("button").addEventListener("click", showAll);
  fold.querySelector("button").addEventListener("click", () => {
    unfolded = !unfolded;
    changed();
  });
  for (const of of [form, hero, document.getElementById("track-tabs")]) of.hidden = false;
  recall();
  filter();
  showPair();
  let width = canvas.clientWidth;
  new ResizeObserver(() => {
    if (canvas.clientWidth === width) return;
    width = canvas.clientWidth;
    draw();
  }).observe(canvas);
})();
