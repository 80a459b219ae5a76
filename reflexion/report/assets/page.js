"use strict";
(() => {
  // A line for each episode: its row, a tab, and all of it. Only rows are parsed before one is opened.
  const lines = document.getElementById("episodes").textContent.split("\n").filter((line) => line.includes("\t"));
  const ID = 0, REPEAT = 1, OUTCOME = 2, SOLVED_AT = 3, TRIALS = 4, FAILURE = 5, TOKENS = 6, COST = 7, SECONDS = 8, CACHED = 9, STEPS = 10, STRATEGY = 11, DIFFERS = 12;
  const rows = lines.map((line) => JSON.parse(line.slice(0, line.indexOf("\t"))));
  const number = new Intl.NumberFormat("en");
  const several = rows.length > 0 && rows[0].length > STRATEGY;  // a comparison of strategies
  const columns = [
    ["Problem", ID, (row) => name(row)],
    ...(several ? [["Strategy", STRATEGY, (row) => row[STRATEGY]]] : []),
    ["Outcome", OUTCOME, (row) => row[OUTCOME].replace("_", " ")],
    ["Solved at", SOLVED_AT, (row) => row[SOLVED_AT] ?? "–"],
    ["Trials", TRIALS, (row) => marks(row)],
    ["Failure", FAILURE, (row) => row[FAILURE] ?? ""],
    ["Tokens", TOKENS, (row) => number.format(row[TOKENS])],
    ["Cost, $", COST, (row) => money(row[COST])],
    ["Seconds", SECONDS, (row) => row[SECONDS].toFixed(2)],
    ["Cached", CACHED, (row) => `${row[CACHED]} of ${row[STEPS]}`],
  ];
  const numeric = new Set([SOLVED_AT, TRIALS, TOKENS, COST, SECONDS, CACHED]);
  const $ = (id) => document.getElementById(id);
  const state = { order: null, down: false, page: 0, shown: [], open: new Set() };

  function name(row) { return row[REPEAT] ? `${row[ID]} ~${row[REPEAT]}` : row[ID]; }

  // The trials as a row of marks: failed, failed, passed.
  function marks(row) {
    const all = [...Array(Math.min(row[TRIALS], 12)).keys()].map((n) => el("i", { class: row[SOLVED_AT] === n + 1 ? "pass" : "" }));
    return el("span", { class: "marks" }, el("span", { "aria-hidden": "true" }, ...all), ` ${row[TRIALS]}`);
  }

  function money(cost) { return cost === null ? "unknown" : cost === 0 ? "0" : cost < 0.01 ? cost.toPrecision(2) : cost.toFixed(4); }

  // Everything a model wrote passes through here, as text and never as HTML.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    for (const child of children) {
      if (child !== null && child !== undefined) node.append(child instanceof Node ? child : String(child));
    }
    return node;
  }

  function options(select, values) {
    for (const [value, count] of values) select.append(el("option", { value }, `${String(value).replace("_", " ")} (${number.format(count)})`));
  }

  function tally(column) {
    const counts = new Map();
    for (const row of rows) if (row[column] !== null) counts.set(row[column], (counts.get(row[column]) ?? 0) + 1);
    return counts;
  }

  function matches(n, text) {
    const row = rows[n];
    if ($("filter-outcome").value && row[OUTCOME] !== $("filter-outcome").value) return false;
    if ($("filter-solved").value && String(row[SOLVED_AT]) !== $("filter-solved").value) return false;
    if ($("filter-failure").value && row[FAILURE] !== $("filter-failure").value) return false;
    if (several && $("filter-strategy").value && row[STRATEGY] !== $("filter-strategy").value) return false;
    if (several && $("filter-difference").value && !row[DIFFERS]) return false;
    return text === null || text.test(lines[n]);
  }

  // The lines are searched as they lie, so the words are brought into the same form: JSON without `<`.
  // Names of fields, which end in `":`, are not what anybody looks for.
  function pattern(words) {
    if (!words) return null;
    const json = JSON.stringify(words).slice(1, -1).replaceAll("<", "\\u003c");
    return new RegExp(json.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + "(?!\\w*\":)", "i");
  }

  function filter() {
    const text = pattern($("filter-text").value.trim());
    state.shown = [...rows.keys()].filter((n) => matches(n, text));
    if (state.order !== null) {
      const key = state.order, sign = state.down ? -1 : 1;
      state.shown.sort((a, b) => {
        const x = rows[a][key], y = rows[b][key];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (numeric.has(key) ? x - y : String(x).localeCompare(String(y), "en", { numeric: true })) || a - b;
      });
    }
    state.page = 0;
    draw();
  }

  function size() { return Number($("page-size").value); }

  function draw() {
    const pages = Math.max(1, Math.ceil(state.shown.length / size()));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const body = $("rows");
    body.replaceChildren();
    for (const n of state.shown.slice(state.page * size(), (state.page + 1) * size())) {
      body.append(...rowOf(n));
    }
    $("count").textContent = `${number.format(state.shown.length)} of ${number.format(rows.length)} episodes`;
    $("page").textContent = `Page ${state.page + 1} of ${pages}`;
    const shown = state.shown.slice(state.page * size(), (state.page + 1) * size());
    const all = shown.length > 0 && shown.every((n) => state.open.has(n));
    $("open-all").setAttribute("aria-pressed", all);
    $("open-all").textContent = all ? "Close all on this page" : "Open all on this page";
    $("previous").disabled = state.page === 0;
    $("next").disabled = state.page === pages - 1;
    for (const [index, head] of [...$("columns").children].entries()) {
      const sorted = columns[index][1] === state.order;
      head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    }
  }

  function rowOf(n) {
    const row = rows[n], id = `episode-${n}`, open = state.open.has(n);
    const opener = el("button", { type: "button", class: "opener", "aria-expanded": open, "aria-controls": id }, name(row));
    opener.addEventListener("click", () => toggle(n, opener));
    const line = el("tr", {}, el("th", { scope: "row" }, opener));
    for (const [, key, show] of columns.slice(1)) {
      line.append(el("td", { class: key === OUTCOME ? row[OUTCOME] : numeric.has(key) ? "number" : null }, show(row)));
    }
    const detail = el("tr", { id }, el("td", { class: "detail", colspan: columns.length }));
    detail.hidden = !open;
    if (open) fill(n, detail.firstChild);
    return [line, detail];
  }

  function toggle(n, opener) {
    const detail = $(`episode-${n}`), open = detail.hidden;
    detail.hidden = !open;
    opener.setAttribute("aria-expanded", open);
    if (open) {
      state.open.add(n);
      fill(n, detail.firstChild);
      const key = [rows[n][ID], rows[n][REPEAT], ...(several ? [rows[n][STRATEGY]] : [])];
      history.replaceState(null, "", `#episode=${encodeURIComponent(JSON.stringify(key))}`);
    } else {
      state.open.delete(n);
    }
  }

  function block(title, text, label) {
    return [el("h4", {}, title), el("pre", { tabindex: 0, role: "region", "aria-label": label }, text)];
  }

  // What a model thought before it answered: there for whoever looks for it, folded for all others.
  function thought(output, label) {
    if (!output.thought) return [];
    const length = number.format(output.thought_length ?? [...output.thought].length);
    const text = el("pre", { tabindex: 0, role: "region", "aria-label": `${label}, thought` }, output.thought);
    return [el("details", { class: "thinking" }, el("summary", {}, `thought, ${length} characters`), text)];
  }

  function facts(output) {
    const usage = output.usage ?? {};
    return [
      output.model,
      output.cached ? "from the cache" : null,
      `${(output.seconds ?? 0).toFixed(2)} s`,
      `${number.format(usage.prompt ?? 0)} + ${number.format(usage.completion ?? 0)} tokens`,
      (output.attempts ?? 1) > 1 ? `${output.attempts} attempts (${(output.retried ?? []).join(", ")})` : null,
      output.finish_reason && output.finish_reason !== "stop" ? `ended by ${output.finish_reason}` : null,
    ].filter((fact) => fact !== null && fact !== undefined).join(" · ");
  }

  function diff(marked, label) {
    const pre = el("pre", { class: "diff", tabindex: 0, role: "region", "aria-label": label });
    for (const line of marked) {
      const kind = { "+": "added", "-": "removed", "@": "place" }[line[0]];
      pre.append(el("span", { class: kind }, line || " "));
    }
    return pre;
  }

  // What an acting model thought, did and saw; what is of no known kind is shown as it is.
  function turnsOf(trajectory, label) {
    const list = el("ol", { class: "turns", "aria-label": `${label}, turns` });
    for (const { turn, thought, tool, arguments: given, action, observation, answer, failed, reward, done, ...other } of trajectory) {
      const item = el("li", {});
      if (turn !== undefined) item.append(el("span", { class: "turn" }, turn === 0 ? "Start" : `Turn ${turn}`));
      if (thought) item.append(el("p", { class: "thought" }, String(thought)));
      if (tool !== undefined) item.append(el("code", {}, `${tool}(${typeof given === "string" ? given : given === undefined ? "" : JSON.stringify(given)})`));
      if (action !== undefined) item.append(el("code", {}, String(action)));
      if (observation !== undefined) item.append(el("pre", { class: failed ? "observed bad" : "observed", tabindex: 0, role: "region", "aria-label": `${label}, turn ${turn}, observation${failed ? ", failed" : ""}` }, String(observation)));
      if (answer !== undefined) item.append(el("p", {}, el("b", {}, "Answer: "), String(answer)));
      if (reward !== undefined && turn !== 0) item.append(el("span", { class: "meta" }, `reward ${reward}${done ? ", the world has ended" : ""}`));
      if (Object.keys(other).length) item.append(el("pre", {}, JSON.stringify(other, null, 1)));
      list.append(item);
    }
    return list;
  }

  function trialOf(trial) {
    const verdict = trial.evaluation, reflection = trial.reflection, label = `Trial ${trial.index}`;
    const result = verdict ? (verdict.passed ? "passed" : `failed${verdict.failure_class ? `, ${verdict.failure_class}` : ""}`) : "not judged";
    const node = el("section", { class: `trial ${verdict ? (verdict.passed ? "solved" : "failed") : ""}`, "aria-label": label },
      el("h3", {}, `${label}: ${result}`), el("p", { class: "meta" }, facts(trial)));
    if (trial.lessons?.length) {
      node.append(el("h4", {}, "Lessons it saw"), el("ul", {}, ...trial.lessons.map((text) => el("li", {}, text))));
    }
    if (trial.trajectory?.length) node.append(el("h4", {}, "Turns"), turnsOf(trial.trajectory, label));
    node.append(...thought(trial, label));
    if (trial.error) node.append(...block("No usable answer", trial.error, `${label}, error`));
    else node.append(...block("Answer", trial.answer, `${label}, answer`));
    if (trial.same_as) node.append(el("p", { class: "meta" }, `The same answer as in trial ${trial.same_as}.`));
    if (trial.diff) node.append(el("h4", {}, `Changed since trial ${trial.index - 1}`), diff(trial.diff, `${label}, changes`));
    if (verdict) {
      const visible = verdict.visible_passed === undefined ? "" : ` · visible tests ${verdict.visible_passed ? "passed" : "failed"}`;
      if (verdict.feedback) node.append(...block("Feedback", verdict.feedback, `${label}, feedback`));
      node.append(el("p", { class: "meta" }, `Judged by ${verdict.evaluator}, score ${verdict.score}${verdict.cached ? ", from the cache" : ""}${visible}`));
      if (verdict.details) node.append(...block("Details", JSON.stringify(verdict.details, null, 1), `${label}, details`));
    }
    if (reflection) {
      if (reflection.text.trim()) node.append(...block("Reflection", reflection.text, `${label}, reflection`));
      else node.append(el("h4", {}, "Reflection"), el("p", {}, `no reflection: ${reflection.error ?? "the model gave none"}`));
      node.append(...thought(reflection, `${label}, reflection`));
      const reused = reflection.reused_from ? `reused from a similar failure${reflection.similarity === undefined ? "" : ` (similarity ${reflection.similarity.toFixed(2)})`} · ` : "";
      node.append(el("p", { class: "meta" }, reused + facts(reflection)));
    }
    return node;
  }

  function fill(n, cell) {
    if (cell.childNodes.length) return;
    const episode = JSON.parse(lines[n].slice(lines[n].indexOf("\t") + 1));
    for (const trial of episode.trials ?? []) cell.append(trialOf(trial));
    if (episode.error) cell.append(...block(`Ended by ${episode.error.kind} in ${episode.error.step}`, episode.error.message, "Error"));
    if (!cell.childNodes.length) cell.append(el("p", {}, "There is nothing on record of this episode."));
  }

  function openAll() {
    const button = $("open-all"), open = button.getAttribute("aria-pressed") !== "true";
    for (const n of state.shown.slice(state.page * size(), (state.page + 1) * size())) open ? state.open.add(n) : state.open.delete(n);
    draw();
  }

  function follow() {
    const found = location.hash.match(/^#episode=(.+)$/);
    if (!found) return;
    let key;
    try { key = JSON.parse(decodeURIComponent(found[1])); } catch { return; }
    const n = rows.findIndex((row) => row[ID] === key[0] && row[REPEAT] === key[1] && (!several || row[STRATEGY] === key[2]));
    if (n < 0) return;
    state.open.add(n);
    state.page = Math.floor(state.shown.indexOf(n) / size());
    draw();
    $(`episode-${n}`).previousSibling.querySelector("button").focus();
  }

  function theme() {
    const button = $("theme"), root = document.documentElement;
    const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    button.setAttribute("aria-pressed", dark());
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      button.setAttribute("aria-pressed", dark());
    });
  }

  for (const [title, key] of columns) {
    const button = el("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      state.down = state.order === key ? !state.down : false;
      state.order = key;
      filter();
    });
    $("columns").append(el("th", { scope: "col", class: numeric.has(key) ? "number" : null }, button));
  }
  options($("filter-outcome"), tally(OUTCOME));
  options($("filter-solved"), [...tally(SOLVED_AT)].sort((a, b) => a[0] - b[0]));
  if (several) {
    options($("filter-strategy"), tally(STRATEGY));
    for (const id of ["by-strategy", "by-difference"]) $(id).hidden = false;
    for (const id of ["filter-strategy", "filter-difference"]) $(id).addEventListener("change", filter);
  }
  options($("filter-failure"), [...tally(FAILURE)].sort((a, b) => b[1] - a[1]));
  let timer;
  $("filter-text").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 150); });
  for (const id of ["filter-outcome", "filter-solved", "filter-failure", "page-size"]) $(id).addEventListener("change", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(filter));
  $("open-all").addEventListener("click", openAll);
  $("previous").addEventListener("click", () => { state.page -= 1; draw(); });
  $("next").addEventListener("click", () => { state.page += 1; draw(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
  theme();
  filter();
  follow();
})();
