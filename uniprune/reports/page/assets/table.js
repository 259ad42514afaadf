/* The leaderboard: filters, groups, sorting; rows are drawn in portions. */
const PORTION = 200,
  CHOICES = ["model", "method", "ratio", "protocol", "budget group"],
  GROUPS = ["budget group", "ratio", "model", "method"];
const HIDDEN = ["details", "hard rows"];
const board = { sort: null, shown: [], hidden: new Set(HIDDEN), drawn: 0, listeners: [] };

const columnsShown = () =>
  page.columns
    .map(([name, part], i) => ({ name, part, i }))
    .filter(column => !board.hidden.has(column.part) && !(column.name === "model" && board.model));

/* Rows that the filters leave. The un-pruned rows stay, whatever is chosen but the model: all others refer to them. */
function filtered() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...$("selects").querySelectorAll("select")]
    .filter(select => select.value)
    .map(select => [select.name, select.value]);
  const models = new Set();
  const kept = new Set(
    rows.filter(row => {
      const matches =
        chosen.every(([name, value]) => textOf(row, name) === value) && words.every(word => row.search.includes(word));
      if (matches) models.add(row.settings);
      return matches;
    }),
  );
  return rows.filter(row => kept.has(row) || (row.whole && models.has(row.settings)));
}

function sorted(list) {
  if (!board.sort) return list;
  const { name, down } = board.sort,
    sign = down ? -1 : 1;
  const numeric = list.some(row => numberOf(row, name) !== null);
  const empty = row => cellOf(row, name) === null || (numeric && numberOf(row, name) === null);
  return list
    .slice()
    .sort(
      (a, b) =>
        empty(a) - empty(b) ||
        (empty(a)
          ? 0
          : sign * (numeric ? numberOf(a, name) - numberOf(b, name) : byName(textOf(a, name), textOf(b, name)))),
    );
}

function update() {
  const list = filtered(),
    by = $("group").value;
  const groups = new Map([["", []]]);
  if (by)
    for (const row of list) {
      const key = by === "budget group" && row.whole ? "un-pruned" : textOf(row, by);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
  else groups.set("", list);
  board.shown = [...groups]
    .filter(([, members]) => members.length)
    .flatMap(([key, members]) => [
      ...(by ? [{ title: `${by} ${key}`, count: members.length }] : []),
      ...sorted(members),
    ]);
  $("count").textContent = `${board.model ? `${board.model}: ` : ""}${list.length} of ${rows.length} lines.`;
  board.drawn = 0;
  $("table").tBodies[0].replaceChildren();
  drawHead();
  drawMore();
  board.listeners.forEach(listener => listener(list));
}

function drawHead() {
  const shown = columnsShown();
  $("table").tHead.replaceChildren(
    el(
      "tr",
      {},
      shown.map(({ name, part }, i) => {
        const sort = board.sort?.name === name ? (board.sort.down ? "descending" : "ascending") : null;
        return el(
          "th",
          { scope: "col", "aria-sort": sort, class: i && part !== shown[i - 1].part ? "begin" : null, title: part },
          el("button", { type: "button", "data-column": name, onclick: () => sortBy(name) }, name),
        );
      }),
    ),
  );
}

/* A click sorts, numbers downwards first; the next one turns it around, the third restores the order of the file. */
function sortBy(name) {
  const first = rows.some(row => numberOf(row, name) !== null);
  if (board.sort?.name !== name) board.sort = { name, down: first };
  else board.sort = board.sort.down === first ? { name, down: !first } : null;
  update();
  $("table")
    .tHead.querySelector(`[data-column="${CSS.escape(name)}"]`)
    ?.focus();
}

function drawMore() {
  const next = board.shown.slice(board.drawn, board.drawn + PORTION),
    shown = columnsShown();
  let before = board.shown[board.drawn - 1];
  $("table").tBodies[0].append(
    ...next.map(row => {
      if (row.title) {
        before = undefined;
        return el(
          "tr",
          { class: "group" },
          el("th", { colspan: shown.length, scope: "rowgroup" }, el("span", {}, `${row.title} (${row.count})`)),
        );
      }
      const apart = before && !board.sort && textOf(row, "budget group") !== textOf(before, "budget group");
      before = row;
      return el(
        "tr",
        { class: [row.tied && "tied", row.whole && "whole", apart && "apart"].filter(Boolean).join(" ") || null },
        shown.map((column, i) => tableCell(row, column, i && column.part !== shown[i - 1].part)),
      );
    }),
  );
  board.drawn += next.length;
  const left = board.shown.length - board.drawn;
  $("more").hidden = !left;
  $("more").textContent = `show ${Math.min(left, PORTION)} of ${left} further lines`;
}

function tableCell(row, { name, part, i }, begins) {
  const cell = row.cells[i],
    plain = !Array.isArray(cell);
  const kind = [plain && "text", name === "remarks" && "long", begins && "begin"].filter(Boolean).join(" ") || null;
  if (cell === null) return el("td", { class: begins ? "begin" : null }, "–");
  const value = plain ? cell : cell[0];
  if (name === "method") return el("td", { class: kind }, el("a", { href: methodLink(value) }, value));
  const linked = !plain || name === "identity";
  const hint = !plain && cell[4] && cell[4] !== value ? cell[4] : null;
  return el(
    "td",
    { class: kind, title: hint },
    linked ? el("a", { href: runLink(row.runs, part === "benchmarks" ? name : null), tabindex: -1 }, value) : value,
  );
}

/* Arrow keys move between the links of cells. */
function moveInTable(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell) return;
  event.preventDefault();
  let row = cell.parentElement,
    place = cell.cellIndex;
  for (;;) {
    if (step[0]) row = step[0] > 0 ? row.nextElementSibling : row.previousElementSibling;
    place += step[1];
    if (!row || place < 0 || place >= Math.max(row.cells.length, 2)) return;
    const link = row.cells[place]?.querySelector("a");
    if (link) {
      link.focus();
      return;
    }
  }
}

function startTable() {
  $("selects").replaceChildren(
    ...CHOICES.map(name => {
      const values = unique(rows.map(row => textOf(row, name))).sort(byName);
      const select = el("select", { name, onchange: update });
      options(select, values, "all");
      return values.length > 1 ? el("label", {}, `${name} `, select) : null;
    }).filter(Boolean),
  );
  options($("group"), GROUPS, "nothing");
  $("group").addEventListener("change", update);
  let waiting;
  $("find").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, rows.length > 1000 ? 200 : 0);
  });
  const parts = unique(page.columns.map(([, part]) => part)).filter(part => part !== "run");
  $("parts").replaceChildren(
    ...parts.map(part =>
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          "data-part": part,
          checked: !board.hidden.has(part),
          onchange: event => {
            board.hidden[event.target.checked ? "delete" : "add"](part);
            update();
          },
        }),
        ` ${part}`,
      ),
    ),
  );
  const models = unique(rows.map(row => textOf(row, "model")));
  board.model = models.length === 1 ? models[0] : null; // named once rather than in every line
  $("choices").open = innerWidth > 640;
  $("table").addEventListener("keydown", moveInTable);
  $("more").addEventListener("click", drawMore);
  $("tied-key").hidden = !rows.some(row => row.tied);
}
