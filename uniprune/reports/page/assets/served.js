/* Load of served models. */
function drawServed() {
  const { columns, rows: lines, notes } = page.served;
  if (!lines.length) return;
  $("served").replaceChildren(
    el(
      "details",
      {},
      el("summary", {}, "Served models under load"),
      grid(columns, lines),
      el(
        "div",
        { class: "notes" },
        notes.map(note => el("p", {}, note)),
      ),
    ),
  );
}
