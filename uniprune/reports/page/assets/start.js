/* Views by the address after #: board, abilities, methods/NAME, runs/ID/BENCHMARK, items/BENCHMARK/ROW. */
const VIEWS = { board: () => {}, abilities: chooseBudgets, methods: drawMethods, runs: drawRuns, items: drawItems };

function route() {
  const [view, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent),
    name = VIEWS[view] ? view : "board";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `view-${name}`;
  for (const tab of $("tabs").children)
    tab.hash === `#${name}` ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current");
  VIEWS[name](...rest);
  if (name !== "runs" || !rest[1]) scrollTo(0, 0);
  if (name === "board" && $("curves").data) Plotly.Plots.resize($("curves"));
}

function drawEqual() {
  const { columns, rows: lines, notes } = page.equal;
  if (!lines.length && !notes.length) return;
  $("equal").replaceChildren(
    el(
      "details",
      {},
      el("summary", {}, "Accuracy at equal FLOPs"),
      lines.length ? grid(columns, lines) : "",
      el(
        "div",
        { class: "notes" },
        notes.map(note => el("p", {}, note)),
      ),
    ),
  );
}

async function start() {
  if (!("DecompressionStream" in window)) {
    $("loading").textContent =
      "This browser cannot unpack the page's data; one of 2023 or later can (Chrome or Edge 80, Firefox 113, Safari 16.4).";
    return;
  }
  read(JSON.parse(await unpack("data")));
  const ids = Object.keys(page.runs),
    versions = unique(page.environments.map(one => one.versions.uniprune).filter(Boolean));
  $("made").textContent =
    `Written ${page.made.when} by UniPrune ${page.made.version}: ${rows.length} lines of ${ids.length} runs, made with ${versions.join(", ") || "an unknown version"} on ${unique(page.environments.map(one => one.device)).join(", ") || "unknown machines"}.`;
  $("alerts").replaceChildren(...page.alerts.map(alert => el("p", { class: "alert", role: "note" }, alert)));
  $("notes").replaceChildren(...page.notes.map(note => el("p", {}, note)));
  startTable();
  startCurves();
  startRadar();
  drawEqual();
  drawServed();
  addEventListener("hashchange", route);
  route();
  update();
  $("loading").remove();
  document.body.dataset.ready = "true";
}
start().catch(error => {
  $("loading").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
