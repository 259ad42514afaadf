/* Data of the page, elements, numbers. */
const $ = id => document.getElementById(id);
let page, rows, at;

async function unpack(id) {
  const packed = Uint8Array.from(atob($(id).textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

let plotlyLoaded;
function loadPlotly() {
  return (plotlyLoaded ??= unpack("plotly").then(code => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
  }));
}

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

/* texts of docstrings: `code` between backticks */
const rich = text => text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));

const cellOf = (row, name) => row.cells[at[name]] ?? null;
const textOf = (row, name) => {
  const cell = cellOf(row, name);
  return cell === null ? "–" : Array.isArray(cell) ? cell[0] : cell;
};
const numberOf = (row, name) => {
  const cell = cellOf(row, name);
  return Array.isArray(cell) ? cell[1] : null;
};
const unique = values => [...new Set(values)];
const byName = (a, b) => a.localeCompare(b, undefined, { numeric: true });
const short = number => (Math.abs(number) >= 100 ? number.toFixed(1) : String(+number.toPrecision(3)));
const runLink = (ids, benchmark) => `#runs/${ids.join("+")}` + (benchmark ? `/${encodeURIComponent(benchmark)}` : "");
const methodLink = name => `#methods/${encodeURIComponent(name)}`;
const options = (select, values, first) =>
  select.replaceChildren(
    ...(first === undefined ? [] : [new Option(first, "")]),
    ...values.map(value => new Option(value, value)),
  );

function read(data) {
  page = data;
  at = Object.fromEntries(page.columns.map(([name], i) => [name, i]));
  rows = page.rows;
  rows.forEach((row, i) => {
    row.place = i;
    row.search = row.cells
      .map(cell => (Array.isArray(cell) ? cell[0] : (cell ?? "")))
      .join(" ")
      .toLowerCase();
  });
}

/* a table of texts, or of elements */
function grid(heads, lines, long = []) {
  const textual = heads.map(
    (_, i) => i === 0 || long.includes(i) || lines.some(line => !/^[–\d[]/.test(line[i].textContent ?? line[i])),
  );
  const kind = i => (long.includes(i) ? "long" : textual[i] ? "text" : null);
  const cells = line => line.map((value, i) => el("td", { class: kind(i) }, value));
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((head, i) => el("th", { scope: "col", class: textual[i] ? "text" : null }, head)),
        ),
      ),
      el(
        "tbody",
        {},
        lines.map(line => el("tr", {}, cells(line))),
      ),
    ),
  );
}

const facts = pairs =>
  el(
    "dl",
    {},
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
