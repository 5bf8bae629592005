"use strict";
const sheet = document.getElementById("sheet");
const cards = Array.from(sheet.children);
const order = document.getElementById("order");
const show = document.getElementById("show");
const find = document.getElementById("find");
const told = document.getElementById("told");
const by = {
  severity: (a, b) => b.dataset.severity - a.dataset.severity,
  id: () => 0,
  few: (a, b) => a.dataset.tiles - b.dataset.tiles,
  many: (a, b) => b.dataset.tiles - a.dataset.tiles,
  artefacts: (a, b) => b.dataset.artefacts - a.dataset.artefacts,
  mpp: (a, b) => (a.dataset.mpp || Infinity) - (b.dataset.mpp || Infinity),
  slow: (a, b) => b.dataset.seconds - a.dataset.seconds,
};
const text = new Intl.Collator(undefined, { numeric: true });
function refresh() {
  const first = by[order.value];
  cards.sort((a, b) => first(a, b) || text.compare(a.dataset.id, b.dataset.id));
  sheet.append(...cards);
  const wanted = find.value.trim().toLowerCase();
  let seen = 0;
  for (const card of cards) {
    const fits = ["all", card.dataset.severity, ...card.dataset.kinds.split(" ")].includes(show.value);
    card.hidden = !fits || !card.dataset.id.toLowerCase().includes(wanted);
    seen += !card.hidden;
  }
  told.textContent = seen === cards.length ? "" : `${seen} of ${cards.length} slides shown`;
}
document.getElementById("controls").hidden = false;
order.addEventListener("change", refresh);
show.addEventListener("change", refresh);
find.addEventListener("input", refresh);
