/* Methods: an index, and a page per method with card, runs, token ledger and spans. */
const SPANS = ["vision", "projector", "method", "prefill", "decode"];

function drawMethods(name) {
  const host = $("view-methods"),
    names = Object.keys(page.methods).sort(byName);
  if (!name || !page.methods[name]) {
    host.replaceChildren(
      el("h2", {}, "Methods"),
      grid(
        ["method", "acts", "tokens", "paper", "runs"],
        names.map(one => {
          const [card] = page.methods[one],
            several = page.methods[one].length > 1;
          return [
            el("a", { href: methodLink(one) }, one),
            several ? "one after the other" : (card.acts ?? "–"),
            several ? "–" : (card.tokens ?? "–"),
            several ? "–" : card.paper || "–",
            String(rows.filter(row => textOf(row, "method") === one).length),
          ];
        }),
        [1, 2],
      ),
    );
    return;
  }
  const own = rows.filter(row => textOf(row, "method") === name);
  const models = unique(own.map(row => textOf(row, "model")));
  const wholes = rows.filter(row => row.whole && !own.includes(row) && models.includes(textOf(row, "model")));
  host.replaceChildren(
    el("p", {}, el("a", { href: "#methods" }, "all methods")),
    el("h2", {}, name),
    ...page.methods[name].map(card => cardOf(card, name)),
    el("h3", {}, "Runs"),
    runsOf([...wholes, ...own]),
    el("h3", {}, "Visual tokens per layer"),
    el(
      "form",
      { class: "axes", onsubmit: event => event.preventDefault() },
      el(
        "label",
        {},
        "model ",
        el(
          "select",
          { id: "method-model", onchange: () => drawMethodPlots([...wholes, ...own]) },
          models.map(model => new Option(model)),
        ),
      ),
    ),
    el(
      "figure",
      {},
      el("div", { id: "ledger", class: "plot small" }),
      el("p", { id: "ledger-point", class: "readout", role: "status" }),
      el("div", { id: "ledger-legend", class: "legend" }),
    ),
    el("h3", {}, "Time spans per row"),
    el(
      "figure",
      {},
      el("div", { id: "spans", class: "plot small" }),
      el("p", { id: "spans-point", class: "readout", role: "status" }),
      el("figcaption", { id: "spans-note" }),
    ),
  );
  drawMethodPlots([...wholes, ...own]);
}

function cardOf(card, name) {
  const arxiv = card.paper?.startsWith("arXiv ") ? `https://arxiv.org/abs/${card.paper.slice(6)}` : null;
  return el(
    "article",
    {},
    card.name === name ? "" : el("h3", {}, card.name),
    ...(card.text ?? "").split("\n\n").map(paragraph => el("p", {}, rich(paragraph))),
    facts([
      ["paper", card.paper && (arxiv ? el("a", { href: arxiv, rel: "noreferrer" }, card.paper) : card.paper)],
      [
        "released code",
        card.code && el("a", { href: `https://github.com/${card.code}`, rel: "noreferrer" }, card.code),
      ],
      ["acts", card.acts],
      ["tokens", card.tokens],
      ["needs", card.needs && (card.needs.join(", ") || "nothing beside the tokens")],
    ]),
    card.parameters?.length
      ? grid(
          ["parameter", "type", "default", "meaning"],
          card.parameters.map(one => [
            el("code", {}, one.name),
            el("span", {}, rich(one.kind)),
            el("code", {}, one.default),
            el("span", {}, rich(one.meaning)),
          ]),
          [3],
        )
      : "",
    card.deviations?.length
      ? el(
          "details",
          {},
          el("summary", {}, `Deviations (${card.deviations.length})`),
          el(
            "ul",
            {},
            card.deviations.map(text => el("li", {}, rich(text))),
          ),
        )
      : "",
  );
}

function runsOf(list) {
  const names = [
    "model",
    "ratio",
    "layer",
    "protocol",
    "average",
    "rows",
    "rank",
    "relative %",
    "visual tokens",
    "net speed-up",
    "batch",
    "device",
    "settings",
  ];
  return grid(
    ["method", ...names],
    list.map(row => [
      el("a", { href: runLink(row.runs) }, textOf(row, "method")),
      ...names.map(name =>
        numberOf(row, name) === null ? textOf(row, name) : el("a", { href: runLink(row.runs) }, textOf(row, name)),
      ),
    ]),
  );
}

/* Means over the benchmarks of a row's first run, weighted by rows. */
function meanOf(row, get) {
  let sum = null,
    weight = 0;
  for (const entry of Object.values(page.runs[row.runs[0]].datasets)) {
    const values = get(entry);
    if (!values) continue;
    sum = values.map((value, i) => (sum?.[i] ?? 0) + value * entry.answered);
    weight += entry.answered;
  }
  return weight ? sum.map(value => value / weight) : null;
}

const ledger = { hidden: new Set(), key: "" };

function drawMethodPlots(list) {
  const members = list.filter(row => textOf(row, "model") === $("method-model").value);
  const settings = new Set(members.filter(row => !row.whole).map(row => textOf(row, "settings")));
  const name = row =>
    row.whole
      ? "un-pruned"
      : [`ratio ${textOf(row, "ratio")}`, `layer ${textOf(row, "layer")}`, ownWords(textOf(row, "settings"), settings)]
          .filter(Boolean)
          .join(" · ");
  const lines = members.map((row, i) => ({
    row,
    key: String(i),
    name: name(row),
    ...(row.whole
      ? { colour: colour("--text"), symbol: "star", dash: "dash" }
      : markOf(
          String(i),
          members.map((_, k) => String(k)),
        )),
  }));
  const counted = lines
    .map(line => ({ ...line, values: meanOf(line.row, entry => entry.ledger?.layers) }))
    .filter(line => line.values);
  const key = location.hash + $("method-model").value;
  if (ledger.key !== key) Object.assign(ledger, { key, hidden: new Set() });
  plot(
    $("ledger"),
    counted
      .filter(line => !ledger.hidden.has(line.key))
      .map(line => {
        const texts = line.values.map(
          (tokens, layer) => `${line.name} · layer ${layer} · ${short(tokens)} visual tokens`,
        );
        return {
          type: "scatter",
          mode: "lines+markers",
          x: line.values.map((_, layer) => layer),
          y: line.values,
          line: { color: line.colour, shape: "hv", dash: line.dash },
          marker: { color: line.colour, symbol: line.symbol, size: 6 },
          customdata: texts.map(text => ({ text, href: runLink(line.row.runs) })),
          hovertemplate: texts.map(text => plotText(text).replaceAll(" · ", "<br>") + "<extra></extra>"),
        };
      }),
    {
      xaxis: axis("decoder layer", { dtick: counted[0]?.values.length > 16 ? undefined : 1 }),
      yaxis: axis("visual tokens entering", { rangemode: "tozero" }),
      label: "visual tokens per layer",
    },
    () => drawMethodPlots(list),
    $("ledger-point"),
  );
  legend($("ledger-legend"), counted, ledger.hidden, () => drawMethodPlots(list));
  const timed = lines
    .map(line => ({
      ...line,
      values: meanOf(line.row, entry => entry.timing && SPANS.map(span => entry.timing.spans[span][0])),
    }))
    .filter(line => line.values)
    .reverse();
  const label = line => `${line.name} · batch ${textOf(line.row, "batch")}`;
  plot(
    $("spans"),
    timed.length
      ? SPANS.map((span, i) => {
          const texts = timed.map(
            line =>
              `${line.name} · ${span} ${short(line.values[i])} ms per row · batch ${textOf(line.row, "batch")} on ${textOf(line.row, "device")}`,
          );
          return {
            type: "bar",
            orientation: "h",
            name: span,
            y: timed.map(label),
            x: timed.map(line => line.values[i]),
            marker: { color: COLOURS[i] },
            customdata: texts.map((text, k) => ({ text, href: runLink(timed[k].row.runs) })),
            hovertemplate: texts.map(text => plotText(text).replaceAll(" · ", "<br>") + "<extra></extra>"),
          };
        })
      : [],
    {
      barmode: "stack",
      showlegend: true,
      legend: { orientation: "h", y: 1.15, font: { color: colour("--text") } },
      xaxis: axis("ms per row"),
      yaxis: axis(""),
      label: "time spans per row",
    },
    () => drawMethodPlots(list),
    $("spans-point"),
  );
  $("spans-note").textContent = timed.length
    ? `Means over benchmarks of the median per row, on ${unique(timed.map(line => textOf(line.row, "device"))).join("; ")}. A batch's time is shared equally by its rows.`
    : "These runs have no times: their rows shared image features or prefixes, or were run before times were stored.";
}
