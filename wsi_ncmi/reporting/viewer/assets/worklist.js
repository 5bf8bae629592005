"use strict";
// The list of a prediction job's slides. The choice stands in the address, so that the way back leads to it.

const byId = (id) => document.getElementById(id);
const CHOICES = ["search", "show", "sort"];
let asked = 0;

function element(name, text, attributes) {
  return Object.assign(document.createElement(name), { textContent: text || "" }, attributes);
}

function choice(page) {
  const query = new URLSearchParams();
  for (const name of CHOICES) {
    const box = byId(name);
    if (box.value && (box.selectedIndex ?? 1) !== 0) query.set(name, box.value);
  }
  if (byId("order").checked) query.set("order", "down");
  if (page) query.set("page", String(page));
  return query;
}

function cell(name, ...content) {
  const made = element("td", "", { className: name });
  made.setAttribute("role", "cell");
  made.append(...content.filter(Boolean));
  return made;
}

function answer(row) {
  if (!row) return [element("span", "–")];
  if (!row.prediction) return [element("strong", "no answer")];
  const abstained = row.decision !== row.prediction;
  return [
    element("strong", abstained ? "abstained" : row.prediction),
    abstained && element("small", `most probable: ${row.prediction}`),
    row.by && element("small", `answered by ${row.by}`),
  ];
}

function rowOf(row, query) {
  const made = element("tr", "", { className: row.needs ? "needs" : "" });
  made.setAttribute("role", "row");
  const folder = `slides/${encodeURIComponent(row.id)}/`;
  const image = element("img", "", { alt: "", loading: "lazy", src: `${folder}thumbnail.jpg`, width: 96, height: 64 });
  image.addEventListener("error", () => image.remove());
  const name = element("th", "", { className: "name", scope: "row" });
  name.setAttribute("role", "rowheader");
  name.append(element("a", row.id, { href: `${folder}?${query}` }), row.case ? element("small", row.case) : "");
  const tags = row.flags.map((flag) => element("span", flag, { className: "tag" }));
  const why = row.needs && !row.flags.length ? element("span", row.needs, { className: "tag" }) : "";
  made.append(
    cell("tissue", image),
    name,
    cell("answer", ...answer(row)),
    cell("probability", row.shown),
    cell("why", why, ...tags, element("small", [row.reason, row.remark].filter(Boolean).join("; "))),
  );
  if (!byId("other-head").hidden) {
    const theirs = cell("other", ...answer(row.other), row.other && element("small", row.other.shown));
    if (row.differs) theirs.append(element("span", "differs", { className: "tag" }));
    made.append(theirs);
  }
  made.append(cell("verdict", row.verdict));
  return made;
}

async function load(page) {
  const query = choice(page);
  asked += 1;
  const own = asked;
  history.replaceState(null, "", `?${query}`);
  const reply = await fetch(`rows.json?${query}`);
  if (own !== asked) return;
  if (!reply.ok) {
    byId("count").textContent = await reply.text();
    return;
  }
  const found = await reply.json();
  if (own !== asked) return;
  document.title = `Worklist of ${found.model}`;
  byId("title").textContent = document.title;
  byId("other-head").hidden = !found.other;
  byId("other-head").textContent = `Second: ${found.other}`;
  for (const option of byId("show").options) {
    option.text = `${option.text.replace(/ \(\d+\)$/, "")} (${found.counts[option.value]})`;
    option.hidden = option.value === "differ" && !found.other;
  }
  byId("count").textContent = `${found.total} of ${found.counts.all} slides, ${found.counts.person} ${found.counts.person === 1 ? "needs" : "need"} a person, ${found.counts.open} without verdict`;
  byId("rows").replaceChildren(...found.rows.map((row) => rowOf(row, query)));
  byId("pages").hidden = found.pages < 2;
  byId("page").textContent = `${found.page + 1} of ${found.pages}`;
  byId("page-back").disabled = found.page === 0;
  byId("page-on").disabled = found.page + 1 === found.pages;
  byId("page-back").onclick = () => turn(found.page - 1);
  byId("page-on").onclick = () => turn(found.page + 1);
  document.body.dataset.ready = String(own);
}

async function turn(page) {
  await load(page);
  byId("rows").querySelector("a")?.focus();
}

function step(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const links = [...byId("rows").querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (!by || at < 0 || !links[at + by]) return;
  event.preventDefault();
  links[at + by].focus();
}

const given = new URLSearchParams(location.search);
for (const name of CHOICES) if (given.has(name)) byId(name).value = given.get(name);
byId("order").checked = given.get("order") === "down";
let pause = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(load, 150, 0);
});
for (const name of ["show", "sort", "order"]) byId(name).addEventListener("change", () => load(0));
byId("choice").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("rows").querySelector("a")?.focus();
});
byId("rows").addEventListener("keydown", step);
load(Number(given.get("page")) || 0);
