/* Marks of methods that stay apart beyond twenty, and a legend of buttons. */
const COLOURS = [
  "#3b82f6",
  "#e8590c",
  "#16a34a",
  "#c026d3",
  "#b45309",
  "#0891b2",
  "#e11d48",
  "#7c3aed",
  "#64748b",
  "#84a30d",
];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
const SHAPES = {
  circle: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0z",
  square: "M-4-4h8v8h-8z",
  diamond: "M0-5.5L5.5 0 0 5.5-5.5 0z",
  "triangle-up": "M0-5L5 4h-10z",
  "triangle-down": "M0 5L5-4h-10z",
  cross: "M-2-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
  x: "M-5-3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z",
  star: "M0-6l1.6 3.8 4.1.3-3.1 2.7 1 4L0 2.6-3.6 4.8l1-4-3.1-2.7 4.1-.3z",
};
const DASHES = ["solid", "dot", "dash", "dashdot"];

/* colour and symbol of a name's place among all names: eighty pairs */
const markOf = (name, names) => {
  const place = names.indexOf(name);
  return {
    colour: COLOURS[place % COLOURS.length],
    symbol: SYMBOLS[(place + Math.floor(place / COLOURS.length)) % SYMBOLS.length],
  };
};

function swatch({ colour, symbol, dash }) {
  const space = "http://www.w3.org/2000/svg",
    svg = document.createElementNS(space, "svg");
  const lines = { solid: "", dot: "2 2", dash: "5 3", dashdot: "5 2 2 2" };
  svg.setAttribute("width", 30);
  svg.setAttribute("height", 14);
  svg.setAttribute("viewBox", "-15 -7 30 14");
  svg.setAttribute("aria-hidden", true);
  for (const [d, fill, stroke] of [
    ["M-15 0H15", "none", colour],
    [SHAPES[symbol], colour, "none"],
  ]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", d);
    path.setAttribute("fill", fill);
    path.setAttribute("stroke", stroke);
    path.setAttribute("stroke-width", 1.8);
    if (stroke !== "none") path.setAttribute("stroke-dasharray", lines[dash ?? "solid"]);
    svg.append(path);
  }
  return svg;
}

/* Buttons that switch lines on and off; pointing at one, or focusing it, brings its line forward. */
function legend(host, lines, hidden, changed, pointed) {
  const set = keys => {
    hidden.clear();
    keys.forEach(key => hidden.add(key));
    changed();
  };
  host.replaceChildren(
    lines.length > 1
      ? el(
          "div",
          { class: "all" },
          el("button", { type: "button", onclick: () => set([]) }, "all"),
          el("button", { type: "button", onclick: () => set(lines.map(line => line.key)) }, "none"),
          el(
            "span",
            { class: "soft" },
            `${lines.filter(line => !hidden.has(line.key)).length} of ${lines.length} lines drawn`,
          ),
        )
      : "",
    ...lines.map(line =>
      el(
        "button",
        {
          type: "button",
          class: "line",
          "aria-pressed": String(!hidden.has(line.key)),
          "data-key": line.key,
          onclick: () => {
            hidden[hidden.has(line.key) ? "delete" : "add"](line.key);
            changed();
            host.querySelector(`[data-key="${CSS.escape(line.key)}"]`)?.focus();
          },
          onmouseenter: () => pointed?.(line.key),
          onmouseleave: () => pointed?.(null),
          onfocus: () => pointed?.(line.key),
          onblur: () => pointed?.(null),
        },
        swatch(line),
        line.name,
      ),
    ),
  );
}
