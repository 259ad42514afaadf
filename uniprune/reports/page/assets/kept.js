/* Kept tokens over an image, from the stored selections: what was not kept is darkened, merged tokens have a dot. */
const bitsOf = text => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return place => (bytes[place >> 3] >> (7 - (place & 7))) & 1;
};

function cellsOf(selections, picture) {
  const cells = [];
  let number = 0;
  for (const {
    size: [, high, wide],
    area: [left, top, right, bottom],
    pictures,
  } of selections.grids)
    for (const one of pictures)
      for (let y = 0; y < high; y++)
        for (let x = 0; x < wide; x++, number++)
          if (one === picture)
            cells.push({
              number,
              x: left + ((right - left) * x) / wide,
              y: top + ((bottom - top) * y) / high,
              width: (right - left) / wide,
              height: (bottom - top) / high,
            });
  return cells;
}

function drawKept(canvas, image, selections, stage, picture) {
  const scale = Math.max(1, 288 / image.naturalWidth),
    pen = canvas.getContext("2d"),
    cells = cellsOf(selections, picture);
  const point = selections.stages[stage],
    kept = point ? bitsOf(point.bits) : () => 1,
    merged = point?.merged ? bitsOf(point.merged) : () => 0;
  [canvas.width, canvas.height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  for (const cell of cells) {
    const [x, y, w, h] = [
      cell.x * canvas.width,
      cell.y * canvas.height,
      cell.width * canvas.width,
      cell.height * canvas.height,
    ];
    if (!kept(cell.number)) {
      pen.fillStyle = "rgba(8, 10, 16, .72)";
      pen.fillRect(x, y, w + 0.5, h + 0.5);
    } else if (merged(cell.number)) {
      pen.fillStyle = "#f59e0b";
      pen.beginPath();
      pen.arc(x + w / 2, y + h / 2, Math.max(1.5, Math.min(w, h) / 6), 0, 7);
      pen.fill();
    }
  }
  return { kept: cells.filter(cell => kept(cell.number)).length, all: cells.length };
}

/* Figures of every run that stored what it kept, A and B first, at one pruning point. */
function keptFigures(item, data, first) {
  const runs = Object.keys(item.kept ?? {})
    .map(Number)
    .sort((a, b) => first.includes(b) - first.includes(a))
    .slice(0, 12);
  const points = Math.max(0, ...runs.map(run => item.kept[run].stages.length));
  if (!points || !item.images?.length || item.videos) return [];
  const host = el("div", { class: "pictures", id: "kept" });
  const draw = stage =>
    host.replaceChildren(
      ...runs.flatMap(run =>
        item.images.map((source, picture) => {
          const selections = item.kept[run],
            at = Math.min(stage, selections.stages.length - 1),
            canvas = el("canvas", { role: "img", "aria-label": `tokens kept by ${runName(data.runs[run])}` }),
            text = el("figcaption");
          const image = new Image();
          image.addEventListener("load", () => {
            const { kept, all } = drawKept(canvas, image, selections, at, picture);
            text.textContent = `${runName(data.runs[run])}: ${kept} of ${all} tokens${at < 0 ? "" : ` from layer ${selections.stages[at].layer} on`}`;
          });
          image.src = source;
          return el("figure", {}, canvas, text);
        }),
      ),
    );
  draw(points - 1);
  const slider = el("input", {
    type: "range",
    min: 0,
    max: points - 1,
    value: points - 1,
    oninput: event => draw(+event.target.value),
  });
  return [el("h3", {}, "Kept tokens"), points > 1 ? el("label", {}, "pruning point ", slider) : "", host];
}
