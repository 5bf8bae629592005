"use strict";
// Rectangles and polygons drawn over a slide, by pointer or keyboard, and stored after each change.

function setUpDrawing({ viewer, outlines, info }, shown, classes, predicted) {
  let { version, areas } = shown;
  let corners = null; // of the area in work: x, y, x, y, …
  let kind = "";
  const drawn = { name: "drawn", colour: "#0b3d91", polygons: [] };
  const begun = { name: "begun", colour: "#c01060", polygons: [], open: true };
  for (const shape of [drawn, begun]) {
    outlines.shapes.push(shape);
    outlines.visible.set(shape.name, true);
  }
  byId("drawing").hidden = false;
  byId("area-class").value = predicted || classes[0] || "";
  for (const name of [...classes, "tissue", "include", "add", "exclude"]) {
    byId("area-classes").append(new Option(name));
  }

  const say = (words) => (byId("drawing-said").textContent = words);
  const clamped = (point) => [
    Math.round(10 * Math.min(Math.max(point.x, 0), info.width)) / 10,
    Math.round(10 * Math.min(Math.max(point.y, 0), info.height)) / 10,
  ];
  const draw = () => {
    drawn.polygons = areas.map((area) => area.rings);
    begun.polygons = corners && corners.length ? [[corners]] : [];
    outlines.draw();
  };
  const list = () => {
    byId("areas").replaceChildren(
      ...areas.map((area, at) => {
        const item = document.createElement("li");
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "Delete";
        remove.setAttribute("aria-label", `Delete area ${at + 1}, ${area.name}`);
        remove.addEventListener("click", () => store(areas.filter((_, other) => other !== at), "Deleted."));
        item.append(`${at + 1} ${area.name} `, remove);
        return item;
      }),
    );
    draw();
  };
  async function store(wanted, words) {
    try {
      ({ version, areas } = await postJson("drawing", { version, areas: wanted }));
      say(words);
      list();
      return true;
    } catch (error) {
      say(`Not saved. ${error.message}`);
      return false;
    }
  }

  const begin = (wanted) => {
    kind = kind === wanted ? "" : wanted;
    corners = kind ? [] : null;
    for (const name of ["rectangle", "polygon"]) byId(`draw-${name}`).setAttribute("aria-pressed", String(name === kind));
    byId("drawing-now").hidden = !kind;
    byId("cross").hidden = !kind;
    byId("finish").hidden = kind === "rectangle";
    if (kind) viewer.canvas.focus();
    draw();
  };
  const finish = async () => {
    if (!corners || corners.length < 6) {
      say("An area needs three corners.");
      return;
    }
    const area = { name: byId("area-class").value, rings: [[...corners, corners[0], corners[1]]] };
    if (await store([...areas, area], `Saved: ${area.name}.`)) begin(kind);
  };
  const addCorner = (point) => {
    const [x, y] = clamped(point);
    if (kind === "rectangle" && corners.length === 2) {
      const [left, top] = corners;
      corners = [left, top, x, top, x, y, left, y];
      finish().then(() => {
        if (kind) corners = [left, top]; // It was not saved.
        draw();
      });
      return;
    }
    corners.push(x, y);
    draw();
    say(`Corner ${corners.length / 2} at ${x}, ${y} px.`);
  };
  const middle = () => viewer.world.getItemAt(0).viewportToImageCoordinates(viewer.viewport.getCenter(true));

  viewer.addHandler("canvas-click", (event) => {
    if (!kind || !event.quick) return;
    event.preventDefaultAction = true;
    addCorner(viewer.world.getItemAt(0).viewerElementToImageCoordinates(event.position));
  });
  viewer.addHandler("canvas-double-click", (event) => {
    if (kind) event.preventDefaultAction = true;
  });
  viewer.canvas.addEventListener("keydown", (event) => {
    if (!kind || event.ctrlKey) return;
    if (event.key === "Enter") addCorner(middle());
    if (event.key === "Backspace") byId("corner-back").click();
    if (event.key === "Escape") begin(kind);
  });
  byId("draw-rectangle").addEventListener("click", () => begin("rectangle"));
  byId("draw-polygon").addEventListener("click", () => begin("polygon"));
  byId("corner").addEventListener("click", () => addCorner(middle()));
  byId("corner-back").addEventListener("click", () => {
    corners = corners.slice(0, -2);
    draw();
  });
  byId("finish").addEventListener("click", finish);
  list();
}
