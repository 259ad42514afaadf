/* Items: what every run answered to a question, and which items two runs score differently. */
const browser = { benchmark: null, first: "", second: "", show: "all" };
const runName = id => {
  const run = page.runs[id];
  return `${run.model.name} ${run.setup.method.name}${run.setup.method.kind === "none" ? "" : ` ${run.setup.ratio}`}${run.setup.seed ? ` seed ${run.setup.seed}` : ""}`;
};
const SHOWN = {
  all: () => true,
  "A and B differ": (a, b) => a !== b,
  "A right, B wrong": (a, b) => a > b,
  "A wrong, B right": (a, b) => a < b,
  "both wrong": (a, b) => a === 0 && b === 0,
};

/* places of runs: model by model, the un-pruned first */
const inOrder = data =>
  data.runs
    .map((_, i) => i)
    .sort((a, b) => {
      const [one, other] = [a, b].map(i => page.runs[data.runs[i]]);
      return (
        byName(one.model.name, other.model.name) ||
        (other.setup.method.kind === "none") - (one.setup.method.kind === "none") ||
        byName(runName(data.runs[a]), runName(data.runs[b]))
      );
    });

function drawItems(name, index) {
  const host = $("view-items"),
    names = Object.keys(page.items);
  if (!names.length) {
    host.replaceChildren(
      el("h2", {}, "Items"),
      el("p", {}, "This page was written without items: ", el("code", {}, "--items N"), " adds them."),
    );
    return;
  }
  const benchmark = page.items[name] ? name : names[0],
    data = page.items[benchmark];
  if (browser.benchmark !== benchmark) {
    const [first] = inOrder(data),
      model = page.runs[data.runs[first]].model.name;
    const second = inOrder(data).find(i => i !== first && page.runs[data.runs[i]].model.name === model) ?? first;
    Object.assign(browser, { benchmark, first: String(first), second: String(second) });
  }
  const [a, b] = [+browser.first, +browser.second];
  const list = data.items.filter(item => SHOWN[browser.show](item.credits[a] ?? null, item.credits[b] ?? null));
  const chosen = list.find(item => item.index === index) ?? list[0];
  const choose = (key, values) =>
    el(
      "select",
      {
        "data-choice": key,
        onchange: event => {
          browser[key] = event.target.value;
          drawItems(benchmark, chosen?.index);
        },
      },
      values.map(([value, text]) => {
        const option = new Option(text, value);
        option.selected = browser[key] === value;
        return option;
      }),
    );
  const runs = inOrder(data).map(i => [String(i), runName(data.runs[i])]);
  host.replaceChildren(
    el("h2", {}, "Items"),
    el(
      "form",
      { onsubmit: event => event.preventDefault() },
      el(
        "label",
        {},
        "benchmark ",
        el(
          "select",
          {
            id: "items-benchmark",
            onchange: event => {
              location.hash = `#items/${encodeURIComponent(event.target.value)}`;
            },
          },
          names.map(one => {
            const option = new Option(one, one);
            option.selected = one === benchmark;
            return option;
          }),
        ),
      ),
      el("label", {}, "A ", choose("first", runs)),
      el("label", {}, "B ", choose("second", runs)),
      el(
        "label",
        {},
        "show ",
        choose(
          "show",
          Object.keys(SHOWN).map(one => [one, one]),
        ),
      ),
    ),
    el(
      "p",
      { class: "soft" },
      `${list.length} shown, of ${data.items.length} items on this page, of ${data.total} that were scored; those on which runs differ most come first. `,
      data.notes.join(" "),
    ),
    el(
      "div",
      { class: "browser" },
      el(
        "ul",
        { class: "list", id: "items-list" },
        list.map(item =>
          el(
            "li",
            {},
            el(
              "a",
              {
                href: `#items/${encodeURIComponent(benchmark)}/${encodeURIComponent(item.index)}`,
                "aria-current": item === chosen ? "true" : null,
              },
              mark(item.credits[a]),
              " ",
              mark(item.credits[b]),
              ` ${item.question || item.index}`,
            ),
          ),
        ),
      ),
      chosen ? itemOf(chosen, data) : el("p", {}, "No item is left by this choice."),
    ),
  );
}

const mark = credit =>
  credit === null || credit === undefined
    ? el("span", { title: "no credit" }, "–")
    : el(
        "span",
        { class: credit >= 0.5 ? "right" : "wrong", title: `credit ${short(credit)}` },
        credit === 1 ? "✓" : credit === 0 ? "✗" : short(credit),
      );

function itemOf(item, data) {
  return el(
    "article",
    { id: "item" },
    el("h3", {}, item.question || `row ${item.index}`),
    facts([
      ["row", item.index],
      ["expected", item.answer],
      [
        "right",
        `${item.credits.filter(credit => credit >= 0.5).length} of ${item.credits.filter(credit => credit !== null).length} runs`,
      ],
      ["image", item.problem],
      ["video", item.videos ? "its first frame is shown" : ""],
    ]),
    el(
      "div",
      { class: "pictures" },
      (item.images ?? []).map((source, i) =>
        el("figure", {}, el("img", { src: source, alt: `image ${i + 1} of the question` })),
      ),
    ),
    ...keptFigures(item, data, [+browser.first, +browser.second]),
    grid(
      ["run", "credit", "prediction"],
      inOrder(data).map(i => [
        el("a", { href: runLink([data.runs[i]], browser.benchmark) }, runName(data.runs[i])),
        mark(item.credits[i]),
        item.predictions[i] ?? "–",
      ]),
      [2],
    ),
  );
}
