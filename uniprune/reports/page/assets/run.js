/* Runs: an index, and provenance and results of one or more. */
function drawRuns(ids, benchmark) {
  const host = $("view-runs");
  const known = (ids ? ids.split("+") : []).filter(id => page.runs[id]);
  if (known.length) {
    host.replaceChildren(el("p", {}, el("a", { href: "#runs" }, "all runs")), ...known.map(id => runOf(id)));
    document.getElementById(`${known[0]}/${benchmark}`)?.scrollIntoView();
    return;
  }
  host.replaceChildren(
    el("h2", {}, "Runs"),
    ids ? el("p", { class: "alert" }, `No run ${ids} is on this page.`) : "",
    grid(
      ["run", "model", "method", "ratio", "rows", "days", "version", "device"],
      rows.slice(0, 2000).flatMap(row =>
        row.runs.map(id => {
          const run = page.runs[id],
            [first] = environmentsOf(run),
            days = unique(Object.values(run.datasets).flatMap(entry => entry.days));
          return [
            el("a", { href: runLink([id]) }, id),
            run.model.name,
            run.setup.method.name,
            String(run.setup.ratio),
            textOf(row, "rows"),
            days.join(", ") || "not stored",
            first?.versions.uniprune ?? "–",
            first?.device ?? "–",
          ];
        }),
      ),
    ),
    rows.length > 2000 ? el("p", { class: "soft" }, "The first 2000 lines; the leaderboard finds the others.") : "",
  );
}

const environmentsOf = run =>
  unique(Object.values(run.datasets).flatMap(entry => entry.environments)).map(place => page.environments[place]);
const wordsOf = value => (value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value));

function runOf(id) {
  const run = page.runs[id],
    { method, processor, ...setup } = run.setup,
    entries = Object.entries(run.datasets);
  const passed = Object.entries(method.passed)
    .map(([name, value]) => `${name}=${wordsOf(value)}`)
    .join(" ");
  return el(
    "article",
    {},
    el(
      "h2",
      {},
      `${run.model.name} · `,
      el("a", { href: methodLink(method.name) }, method.name),
      ` · ratio ${setup.ratio}`,
    ),
    el(
      "div",
      { class: "columns" },
      el(
        "div",
        {},
        el("h3", {}, "Provenance"),
        facts([
          ["run", page.links[id] ? el("a", { href: `${page.links[id]}/record.json` }, id) : id],
          ["checkpoint", run.model.source],
          ["weights", setup.weights],
          ["parameters", run.model.parameters?.toLocaleString("en")],
          ["family", run.model.family],
          ["days", unique(entries.flatMap(([, entry]) => entry.days)).join(", ") || "not stored"],
          ["limit", setup.limit === null ? "none: whole benchmarks" : `--limit ${setup.limit}`],
          ["batch", unique(entries.flatMap(([, entry]) => Object.keys(entry.batching))).join("; ") || "not stored"],
          ...environmentsOf(run).map((one, i, all) => [
            all.length > 1 ? `machine ${i + 1}` : "machine",
            machineOf(one),
          ]),
          ["remarks", [run.model.unused, run.model.untried].filter(Boolean).join(" ")],
          ["known as", run.known_as.join(", ")],
        ]),
      ),
      el(
        "div",
        {},
        el("h3", {}, "Settings"),
        facts([
          ["given", passed || "the method's defaults"],
          ["stages", method.stages.map(([layer, share]) => `layer ${layer}: ${short(share)}`).join(", ") || "none"],
          ["method's code", method.code],
          ...method.resolved.map((fields, i) => [
            method.resolved.length > 1 ? `fields ${i + 1}` : "fields",
            Object.entries(fields)
              .map(([name, value]) => `${name}=${wordsOf(value)}`)
              .join(" "),
          ]),
          ["image processor", wordsOf(processor)],
          ...Object.entries(setup)
            .filter(([name]) => !["weights", "limit", "ratio"].includes(name))
            .map(([name, value]) => [name.replaceAll("_", " "), wordsOf(value)]),
        ]),
      ),
    ),
    el("h3", {}, "Benchmarks"),
    benchmarksOf(id, entries),
    ...entries
      .filter(([, entry]) => entry.timing)
      .slice(0, 1)
      .map(() => el("h3", {}, "Times, ms: median (quartile distance)")),
    entries.some(([, entry]) => entry.timing) ? timesOf(entries) : "",
  );
}

function machineOf(one) {
  const versions = Object.entries(one.versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
  return `${one.device}, ${one.threads} thread${one.threads === 1 ? "" : "s"}; ${versions}; commit ${one.git ?? "unknown"}`;
}

function benchmarksOf(id, entries) {
  const heads = [
    "benchmark",
    "score",
    "95 %",
    "metric",
    "rows",
    "left out",
    "judge",
    "visual tokens",
    "TFLOPs",
    "data md5",
    "days",
    "remarks",
  ];
  const table = grid(
    heads,
    entries.map(([name, entry]) => {
      const { score, ledger } = entry,
        limited = entry.whole !== undefined && entry.rows < entry.whole,
        link = page.links[id] && `${page.links[id]}/${encodeURIComponent(name)}.record.json`;
      const out = Object.entries(entry.faulty)
        .map(([row, reason]) => `${row}: ${reason}`)
        .join("\n");
      const number = score ? score.value.toFixed(1) : "–";
      return [
        link ? el("a", { href: link }, name) : name,
        page.items[name] ? el("a", { href: `#items/${encodeURIComponent(name)}` }, number) : number,
        score?.interval
          ? `[${score.interval.map(end => end.toFixed(1)).join(", ")}]${score.interval_of === "headline" ? "" : " of the mean credit"}`
          : "–",
        score?.metric ?? "not scored",
        limited ? `${entry.rows} of ${entry.whole}` : String(entry.rows),
        entry.out ? el("span", { title: out }, String(entry.out)) : "0",
        score?.judge ?? "–",
        ledger ? ledger.average.toFixed(1) : "–",
        ledger?.flops ? short((ledger.flops.vision + ledger.flops.projector + ledger.flops.llm) / 1e12) : "–",
        el("code", {}, entry.data),
        entry.days.join(", ") || "not stored",
        [...entry.remarks, score?.judge_note].filter(Boolean).join("; ") || "–",
      ];
    }),
    [11],
  );
  table.querySelectorAll("tbody tr").forEach((line, i) => {
    line.id = `${id}/${entries[i][0]}`;
  });
  return table;
}

function timesOf(entries) {
  const spans = [...SPANS, "total", "ttft", "tpot"],
    titles = { ttft: "batch TTFT", tpot: "batch TPOT" };
  return grid(
    ["benchmark", "batch", ...spans.map(span => titles[span] ?? span), "new tokens", "peak MiB"],
    entries
      .filter(([, entry]) => entry.timing)
      .map(([name, { timing, batching }]) => [
        name,
        Object.keys(batching).join("; ") || "–",
        ...spans.map(span =>
          timing.spans[span] ? `${short(timing.spans[span][0])} (${short(timing.spans[span][1])})` : "–",
        ),
        short(timing.new_tokens),
        timing.peak_mib === undefined ? "–" : short(timing.peak_mib),
      ]),
  );
}
