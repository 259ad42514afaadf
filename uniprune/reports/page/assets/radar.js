/* Scores per ability of the methods at one budget, with the un-pruned model. */
const radar = { hidden: new Set(), key: "" };
const budgetOf = row =>
  textOf(row, "budget group") === "–" ? `ratio ${textOf(row, "ratio")}` : `group ${textOf(row, "budget group")} tokens`;

function radarRows() {
  const members = rows.filter(
    row => textOf(row, "model") === $("radar-model").value && Object.keys(row.abilities).length,
  );
  const chosen = members.filter(row => !row.whole && budgetOf(row) === $("radar-budget").value);
  const settings = new Set(chosen.map(row => row.settings));
  return [...members.filter(row => row.whole && (settings.has(row.settings) || !chosen.length)), ...chosen];
}

function drawRadar() {
  const list = radarRows(),
    share = $("radar-unit").value === "share";
  const names = unique(list.flatMap(row => Object.keys(row.abilities))).sort(byName);
  const methods = unique(rows.map(row => textOf(row, "method"))).sort(byName);
  const value = (row, name) => {
    const own = row.abilities[name]?.[1] ?? null,
      base = list.find(other => other.whole && other.settings === row.settings)?.abilities[name]?.[1];
    return !share ? own : own !== null && base > 0 ? (100 * own) / base : null;
  };
  const lines = list.map(row => ({
    row,
    key: row.runs.join("+"),
    name: row.whole
      ? "un-pruned"
      : [
          textOf(row, "method"),
          ...(list.filter(other => textOf(other, "method") === textOf(row, "method")).length > 1
            ? [`ratio ${textOf(row, "ratio")}`, `layer ${textOf(row, "layer")}`]
            : []),
        ].join(" · "),
    ...(row.whole
      ? { colour: colour("--text"), symbol: "star", dash: "dash" }
      : markOf(textOf(row, "method"), methods)),
  }));
  const key = $("radar-model").value + $("radar-budget").value;
  if (radar.key !== key) {
    radar.key = key;
    radar.hidden = new Set(
      lines
        .filter(line => !line.row.whole)
        .sort((a, b) => (numberOf(b.row, "average") ?? 0) - (numberOf(a.row, "average") ?? 0))
        .slice(6)
        .map(line => line.key),
    );
  }
  const unit = share ? "% of un-pruned" : "score";
  const traces =
    names.length < 3
      ? []
      : lines
          .filter(line => !radar.hidden.has(line.key))
          .map(line => {
            const places = [...names, names[0]],
              texts = places.map(
                name =>
                  `${line.name} · ${name} · ${unit} ${value(line.row, name)?.toFixed(1) ?? "–"}${share || !line.row.abilities[name] ? "" : interval(line.row.abilities[name])} · ${textOf(line.row, "rows")} rows`,
              );
            return {
              type: "scatterpolar",
              mode: "lines+markers",
              theta: places,
              r: places.map(name => value(line.row, name)),
              name: plotText(line.name),
              meta: line.key,
              line: { color: line.colour, dash: line.dash, width: 1.8 },
              marker: { color: line.colour, symbol: line.symbol, size: 7 },
              customdata: texts.map(text => ({ text, href: runLink(line.row.runs) })),
              hovertemplate: texts.map(text => plotText(text).replaceAll(" · ", "<br>") + "<extra></extra>"),
            };
          });
  plot(
    $("radar"),
    traces,
    {
      label: `${unit} per ability`,
      margin: { l: 84, r: 84, t: 30, b: 30 },
      polar: {
        bgcolor: "transparent",
        angularaxis: { gridcolor: colour("--line"), linecolor: colour("--line") },
        radialaxis: {
          rangemode: "tozero",
          gridcolor: colour("--line"),
          linecolor: colour("--line"),
          angle: 90,
          tickangle: 90,
        },
      },
    },
    drawRadar,
    $("radar-point"),
  );
  legend($("radar-legend"), lines, radar.hidden, drawRadar);
  $("radar-note").textContent = [
    names.length < 3 ? `A radar takes three abilities; these runs have ${names.join(", ") || "none"}.` : "",
    `Mean score of the benchmarks of an ability${share ? ", as a share of the un-pruned model's" : ""}; the table has 95 % intervals.`,
    lines.length > 7 ? "At first the six highest averages are drawn." : "",
  ]
    .filter(Boolean)
    .join(" ");
  const shownCell = (row, name) =>
    share
      ? (value(row, name)?.toFixed(1) ?? "–")
      : row.abilities[name]
        ? `${row.abilities[name][0]}${interval(row.abilities[name])}`
        : "–";
  $("radar-table").replaceChildren(
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ["method", "rows", ...names].map((name, i) => el("th", { scope: "col", class: i ? null : "text" }, name)),
      ),
    ),
    el(
      "tbody",
      {},
      lines.map(({ row, name }) =>
        el(
          "tr",
          {},
          el("td", { class: "text" }, el("a", { href: runLink(row.runs) }, name)),
          el("td", {}, textOf(row, "rows")),
          names.map(ability => el("td", {}, el("a", { href: runLink(row.runs) }, shownCell(row, ability)))),
        ),
      ),
    ),
  );
}

const interval = cell => (typeof cell[2] === "number" ? ` [${cell[2].toFixed(1)}, ${cell[3].toFixed(1)}]` : "");

function chooseBudgets() {
  const members = rows.filter(row => textOf(row, "model") === $("radar-model").value && !row.whole);
  const budgets = unique(members.map(budgetOf)).sort(byName),
    count = budget => unique(members.filter(row => budgetOf(row) === budget).map(row => textOf(row, "method"))).length;
  options($("radar-budget"), budgets);
  if (budgets.length)
    $("radar-budget").value = budgets.reduce((best, budget) => (count(budget) > count(best) ? budget : best));
  drawRadar();
}

function startRadar() {
  options($("radar-model"), unique(rows.map(row => textOf(row, "model"))).sort(byName));
  $("radar-model").addEventListener("change", chooseBudgets);
  for (const id of ["radar-budget", "radar-unit"]) $(id).addEventListener("change", drawRadar);
}
