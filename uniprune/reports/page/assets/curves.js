/* Accuracy against ratio, tokens, operations or times: a line per method, the un-pruned model always there. */
const NET = "net prefill ms",
  TIMES = ["total ms", "batch TTFT ms", "prefill ms", "method ms", NET];
const COSTS = ["ratio", "visual tokens", "TFLOPs", NET, "batch TTFT ms", "total ms", "net speed-up", "KV MB"];
const MOST = 12;
const curves = { hidden: null, list: [] };

const costOf = (row, name) => {
  if (name !== NET) return numberOf(row, name);
  const parts = ["prefill ms", "method ms"].map(part => numberOf(row, part));
  return parts.includes(null) ? null : parts[0] + parts[1];
};
const accuracyOf = (row, name) => {
  const cell = name.startsWith("ability: ") ? row.abilities[name.slice(9)] : cellOf(row, name);
  return Array.isArray(cell) ? cell : null;
};

/* Lines: rows of one method and one way to run it; times are joined only within one batch size and machine. */
function linesOf(list, x, y) {
  const parts = [
    "model",
    "layer",
    "protocol",
    "question",
    "settings",
    ...(TIMES.includes(x) ? ["batch", "device"] : []),
  ];
  const methods = unique(rows.map(row => textOf(row, "method"))).sort(byName),
    models = unique(rows.map(row => textOf(row, "model"))).sort(byName);
  const found = new Map(),
    values = new Map(),
    kind = row => `${textOf(row, "method")}|${textOf(row, "model")}`;
  for (const row of list) {
    // what a method was run with, to name only that in which its lines differ
    if (!values.has(kind(row)))
      values.set(
        kind(row),
        parts.map(() => new Set()),
      );
    parts.forEach((part, i) => values.get(kind(row))[i].add(textOf(row, part)));
  }
  for (const row of list) {
    const cost = costOf(row, x),
      cell = accuracyOf(row, y),
      method = textOf(row, "method");
    if (cost === null || !cell) continue;
    const key = [method, ...parts.map(part => textOf(row, part))].join("|");
    if (!found.has(key)) {
      const differing = parts.filter((part, i) =>
        part === "model" ? models.length > 1 : values.get(kind(row))[i].size > 1,
      );
      const more = differing
        .map(part =>
          part === "layer"
            ? `layer ${textOf(row, part)}`
            : part === "settings"
              ? ownWords(textOf(row, part), values.get(kind(row))[parts.indexOf(part)])
              : textOf(row, part),
        )
        .filter(Boolean);
      found.set(key, {
        key,
        method,
        model: textOf(row, "model"),
        whole: row.whole,
        points: [],
        name: [row.whole ? "un-pruned" : method, ...more].join(" · "),
        ...markOf(method, methods),
        dash: DASHES[models.indexOf(textOf(row, "model")) % DASHES.length],
      });
    }
    found.get(key).points.push({ row, x: cost, y: cell[1], low: cell[2] ?? null, high: cell[3] ?? null });
  }
  const lines = [...found.values()].sort((a, b) => b.whole - a.whole || byName(a.name, b.name));
  lines.forEach(line => {
    line.points.sort((a, b) => a.x - b.x);
    line.best = Math.max(...line.points.map(point => point.y));
    if (line.whole) Object.assign(line, { colour: colour("--text"), symbol: "star" });
  });
  return lines;
}

/* words of a text that some other one lacks */
const ownWords = (text, all) =>
  text
    .split(" ")
    .filter(word => [...all].some(other => !other.split(" ").includes(word)))
    .join(" ");

function traceOf(line, x, y, bars) {
  const points = line.points;
  return {
    type: "scatter",
    mode: "lines+markers",
    x: points.map(point => point.x),
    y: points.map(point => point.y),
    name: plotText(line.name),
    meta: line.key,
    line: { color: line.colour, width: 1.6, dash: line.dash },
    marker: { color: line.colour, symbol: line.symbol, size: line.whole ? 12 : 8 },
    error_y: {
      visible: bars,
      type: "data",
      symmetric: false,
      thickness: 1,
      width: 3,
      color: line.colour,
      array: points.map(point => (point.high === null ? 0 : point.high - point.y)),
      arrayminus: points.map(point => (point.low === null ? 0 : point.y - point.low)),
    },
    customdata: points.map(point => ({ text: pointText(line, point, x, y), href: runLink(point.row.runs) })),
    hovertemplate: points.map(
      point => plotText(pointText(line, point, x, y)).replaceAll(" · ", "<br>") + "<extra></extra>",
    ),
  };
}

function pointText(line, point, x, y) {
  const rowsText = textOf(point.row, "rows");
  const interval = point.low === null ? "" : ` [${point.low.toFixed(1)}, ${point.high.toFixed(1)}]`;
  return [
    line.name,
    ...(x === "ratio" || line.whole ? [] : [`ratio ${textOf(point.row, "ratio")}`]),
    `${y} ${point.y.toFixed(1)}${interval}`,
    `${x} ${short(point.x)}`,
    ...(TIMES.includes(x) ? [`batch ${textOf(point.row, "batch")} on ${textOf(point.row, "device")}`] : []),
    `${rowsText} rows`,
  ].join(" · ");
}

/* What no other point drawn beats in both numbers, per model. */
function frontOf(lines, x) {
  const cheap = x === "net speed-up" ? -1 : 1;
  return unique(lines.map(line => line.model)).map(model => {
    let best = -Infinity;
    const points = lines
      .filter(line => line.model === model)
      .flatMap(line => line.points)
      .sort((a, b) => cheap * (a.x - b.x) || b.y - a.y)
      .filter(point => point.y > best && ((best = point.y), true));
    return {
      type: "scatter",
      mode: "lines",
      x: points.map(point => point.x),
      y: points.map(point => point.y),
      hoverinfo: "skip",
      line: { color: colour("--soft"), width: 1.5, dash: "5px 4px", shape: cheap > 0 ? "hv" : "vh" },
    };
  });
}

/* dashed levels of the un-pruned models, which end at no filter */
const levels = (lines, x) =>
  lines
    .filter(line => line.whole)
    .flatMap(line =>
      line.points.map(point => ({
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: point.y,
        y1: point.y,
        line: { color: colour("--soft"), width: 1, dash: "dot" },
      })),
    );

function drawCurves(list = curves.list) {
  curves.list = list;
  const x = $("x").value,
    y = $("y").value,
    lines = linesOf(list, x, y);
  if (!curves.hidden) {
    const ranked = lines.filter(line => !line.whole).sort((a, b) => b.best - a.best);
    curves.hidden = new Set(ranked.slice(MOST).map(line => line.key));
    curves.cut = curves.hidden.size;
  }
  const shown = lines.filter(line => line.whole || !curves.hidden.has(line.key));
  const traces = [
    ...shown.map(line => traceOf(line, x, y, $("bars").checked)),
    ...($("front").checked ? frontOf(shown, x) : []),
  ];
  const conditions = unique(
    shown.flatMap(line => line.points).map(({ row }) => `batch ${textOf(row, "batch")} on ${textOf(row, "device")}`),
  );
  const title = TIMES.includes(x) && conditions.length === 1 ? `${x} (${conditions[0]})` : x;
  plot(
    $("curves"),
    traces,
    { xaxis: axis(title), yaxis: axis(y), shapes: levels(shown, x), label: `${y} against ${x}` },
    drawCurves,
    $("curves-point"),
  );
  legend(
    $("curves-legend"),
    lines.filter(line => !line.whole),
    curves.hidden,
    drawCurves,
    key => bringForward(key),
  );
  $("curves-note").textContent = [
    "The lines that the filters leave; the star and the dotted level are the un-pruned model.",
    curves.cut
      ? `At first only the ${MOST} lines that reach highest are drawn; the legend switches the others on.`
      : "",
    x === NET ? "Net prefill: prefill and the method's own work." : "",
    TIMES.includes(x) && conditions.length > 1
      ? "These times are of several batch sizes or machines, which do not compare."
      : "",
  ]
    .filter(Boolean)
    .join(" ");
}

function bringForward(key) {
  const host = $("curves");
  if (!host.data?.length) return;
  const opacity = host.data.map(trace => (key === null || trace.meta === key || trace.meta === undefined ? 1 : 0.15));
  Plotly.restyle(host, { opacity });
}

function startCurves() {
  const numeric = name => rows.some(row => numberOf(row, name) !== null);
  const scores = [
    "average",
    "relative %",
    "agreement %",
    ...page.columns.filter(([, part]) => part === "benchmarks").map(([name]) => name),
  ].filter(numeric);
  const abilities = unique(rows.flatMap(row => Object.keys(row.abilities))).sort(byName);
  options($("y"), [...scores, ...abilities.map(name => `ability: ${name}`)]);
  options(
    $("x"),
    COSTS.filter(name => rows.some(row => costOf(row, name) !== null)),
  );
  if (!rows.some(row => numberOf(row, "average") !== null) && scores.length) $("y").value = scores[0];
  for (const id of ["x", "y", "bars", "front"]) $(id).addEventListener("change", () => drawCurves());
  board.listeners.push(list => drawCurves(list));
}
