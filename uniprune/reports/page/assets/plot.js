/* A plot: theme, pointing by mouse, finger and keyboard. Points have `customdata` of {text, href}. */
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const coarse = matchMedia("(pointer: coarse)"),
  dark = matchMedia("(prefers-color-scheme: dark)");
const plotText = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const redraws = new Map();
dark.addEventListener("change", () => redraws.forEach(redraw => redraw()));

const axis = (title, more = {}) => ({
  title: { text: plotText(title) },
  gridcolor: colour("--line"),
  zerolinecolor: colour("--line"),
  linecolor: colour("--line"),
  automargin: true,
  ...more,
});

async function plot(host, traces, layout, redraw, readout) {
  redraws.set(host.id, redraw);
  await loadPlotly();
  host.classList.toggle("empty", !traces.length);
  if (!traces.length) {
    Plotly.purge(host);
    host.replaceChildren(el("p", { class: "soft" }, "Nothing to draw: no line shown has both numbers."));
    return;
  }
  if (!host.data) host.replaceChildren();
  host.tabIndex = 0;
  host.setAttribute("role", "application");
  host.setAttribute("aria-label", `${layout.label}. Arrow keys move from point to point, Enter opens the run.`);
  const { label, ...rest } = layout;
  await Plotly.react(
    host,
    traces,
    {
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      showlegend: false,
      hovermode: "closest",
      dragmode: coarse.matches ? false : "zoom",
      font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
      margin: { l: 56, r: 16, t: 12, b: 48 },
      hoverlabel: {
        bgcolor: colour("--panel"),
        bordercolor: colour("--soft"),
        font: { color: colour("--text") },
        align: "left",
        namelength: -1,
      },
      modebar: { bgcolor: "transparent", color: colour("--soft"), activecolor: colour("--accent") },
      ...rest,
    },
    {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["toImage", host.id === "radar" ? "resetViews" : "resetScale2d"]],
      displayModeBar: coarse.matches ? false : "hover",
    },
  );
  host.cursor = null;
  if (host.pointing) return;
  host.pointing = true;
  host.on("plotly_hover", event => show(host, readout, event.points[0].curveNumber, event.points[0].pointNumber));
  host.on("plotly_click", event => show(host, readout, event.points[0].curveNumber, event.points[0].pointNumber));
  host.addEventListener("keydown", event => movePoint(event, host, readout));
}

function show(host, readout, curve, point) {
  const data = host.data[curve]?.customdata?.[point];
  if (!data) return;
  host.cursor = [curve, point];
  readout.replaceChildren(`${data.text} `, data.href ? el("a", { href: data.href }, "open run") : "");
}

/* Left and right along a line, up and down from line to line. */
function movePoint(event, host, readout) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const lines = host.data.map((trace, i) => i).filter(i => host.data[i].customdata?.length);
  if (event.key === "Enter" && host.cursor) {
    const href = host.data[host.cursor[0]].customdata[host.cursor[1]].href;
    if (href) location.hash = href;
    return;
  }
  if (!steps[event.key] || !lines.length) return;
  event.preventDefault();
  const [line, along] = steps[event.key];
  let [curve, point] = host.cursor ?? [lines[0], -along];
  if (!host.cursor && line) point = 0;
  else if (line) curve = lines[(lines.indexOf(curve) + line + lines.length) % lines.length];
  const count = host.data[curve].customdata.length;
  point = line ? Math.min(point, count - 1) : Math.max(0, Math.min(count - 1, point + along));
  show(host, readout, curve, point);
  Plotly.Fx.hover(
    host,
    [{ curveNumber: curve, pointNumber: point }],
    host.data[curve].type === "scatterpolar" ? "polar" : "xy",
  );
}
