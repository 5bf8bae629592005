"use strict";
// A slide of a prediction job: its answers, the way to the next slide, and the verdict.

async function postJson(name, content) {
  const token = await getJson("../../page_token.json");
  const reply = await fetch(name, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Page-Token": token },
    body: JSON.stringify(content),
  });
  if (!reply.ok) throw new Error((await reply.text()).trim());
  return reply.json();
}

function answerPairs(row) {
  if (!row) return [["decision", "no answer"]];
  const pairs = [["decision", row.decision || "no answer"]];
  if (row.prediction) pairs.push(["most probable", `${row.prediction}, ${row.shown}`]);
  for (const [name, chance] of Object.entries(row.chances)) pairs.push([`p(${name})`, chance]);
  if (row.by) pairs.push(["answered by", row.by]);
  if (row.agreement !== null) pairs.push(["members agreeing", `${Math.round(100 * row.agreement)} %`]);
  if (row.flags.length) pairs.push(["flags", `${row.flags.join(", ")} (${row.words.join("; ")})`]);
  if (row.reason) pairs.push([row.prediction ? "why no decision" : "why no answer", row.reason]);
  return pairs;
}

function tellVerdicts(verdicts) {
  const list = byId("verdicts");
  list.hidden = verdicts.length === 0;
  list.replaceChildren(
    ...verdicts.map((each) => {
      const label = each.verdict === "disagree" && each.label ? `, it is ${each.label}` : "";
      const answer = each.prediction ? ` with ${each.prediction}` : "";
      const words = `${each.verdict}${each.verdict === "unsure" ? "" : answer}${label} · ${each.initials} · ${each.time.replace("T", " ").replace("Z", " UTC")}`;
      return Object.assign(document.createElement("li"), { textContent: each.comment ? `${words}: ${each.comment}` : words });
    }),
  );
}

function setUpVerdict(found, go) {
  const form = byId("verdict");
  const chosen = () => form.querySelector("input[name=verdict]:checked")?.value;
  form.hidden = false;
  for (const name of ["", ...found.classes]) {
    if (name !== found.prediction) byId("label").add(new Option(name || "not said", name));
  }
  byId("initials").value = localStorage.getItem("initials") || "";
  for (const box of form.querySelectorAll("input[name=verdict]")) {
    box.disabled = box.value !== "unsure" && !found.prediction;
    box.addEventListener("change", () => {
      byId("label-line").hidden = chosen() !== "disagree";
    });
  }
  tellVerdicts(found.verdicts);

  let busy = false;
  const save = async (then) => {
    if (busy) return;
    busy = true;
    const content = {
      verdict: chosen() || "",
      label: chosen() === "disagree" ? byId("label").value : "",
      comment: byId("comment").value,
      initials: byId("initials").value,
      prediction: found.prediction,
      digest: found.digest,
    };
    try {
      const { time } = await postJson("verdict", content);
      localStorage.setItem("initials", content.initials);
      found.verdicts.push({ ...content, time });
      tellVerdicts(found.verdicts);
      byId("verdict-said").textContent = `Saved: ${content.verdict}.`;
      byId("comment").value = "";
      if (then) then();
    } catch (error) {
      byId("verdict-said").textContent = `Not saved. ${error.message}`;
    }
    busy = false;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(go);
  });
  byId("save-only").addEventListener("click", () => save(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.ctrlKey) save(go);
  });
  form.querySelector("input[name=verdict]:enabled").focus({ preventScroll: true });
}

function setUpWay(found) {
  const address = (slide) => `../${encodeURIComponent(slide)}/${location.search}`;
  byId("way").hidden = false;
  byId("list").href = `../../${location.search}`;
  byId("place-in-list").textContent = `${found.number} of ${found.total}`;
  for (const [id, slide, key] of [["previous", found.previous, "PageUp"], ["next", found.next, "PageDown"]]) {
    const link = byId(id);
    link.title = key === "PageUp" ? "Page up" : "Page down";
    if (slide) link.href = address(slide);
    else link.setAttribute("aria-disabled", "true");
    document.addEventListener("keydown", (event) => {
      if (event.key !== key || !slide || event.target.matches("textarea, select")) return;
      event.preventDefault();
      location.href = link.href;
    });
  }
  return () => {
    if (found.next) location.href = address(found.next);
    else byId("list").focus();
  };
}

async function startCase() {
  const found = await getJson("case.json" + location.search);
  document.title = `${found.id} · ${found.model}`;
  byId("title").textContent = found.id;
  byId("prediction").hidden = false;
  byId("predicted-title").textContent = found.model;
  const more = [["patient", found.case], ["quality", found.remark]].filter((pair) => pair[1]);
  addPairs(byId("predicted"), [...answerPairs(found), ...more]);
  if (found.other_model) {
    byId("prediction-other").hidden = false;
    byId("other-title").textContent = found.other_model;
    addPairs(byId("predicted-other"), answerPairs(found.other));
  }
  setUpVerdict(found, setUpWay(found));
  let first;
  try {
    first = await openSlide(byId("slide"), "");
  } catch (error) {
    showPicture(error.message, found);
    return;
  }
  if (found.other_model) {
    byId("slide-other").hidden = false;
    follow(first, await openSlide(byId("slide-other"), "other/"));
  }
  const shown = await getJson("drawing.json").catch((error) => tellNotes([error.message]));
  if (shown) setUpDrawing(first, shown, found.classes, found.prediction);
  document.body.dataset.ready = "yes";
}

function showPicture(words, found) {
  tellNotes([words]);
  for (const id of ["slide", "zoom", "hover"]) byId(id).hidden = true;
  const picture = byId("picture");
  picture.alt = `Thumbnail of ${found.id} with the outline of its tissue`;
  picture.src = "thumbnail.jpg";
  picture.hidden = false;
  picture.addEventListener("error", () => (picture.hidden = true));
  document.body.dataset.ready = "yes";
}
