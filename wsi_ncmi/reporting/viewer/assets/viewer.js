"use strict";
// The page of one slide. It asks its own server for everything and nobody else for anything.

const byId = (id) => document.getElementById(id);

async function getJson(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function tileSource(info, address) {
  const longest = Math.max(info.width, info.height);
  return {
    width: info.width,
    height: info.height,
    tileSize: info.tile_px,
    tileOverlap: 0,
    minLevel: Math.max(0, Math.floor(Math.log2(info.tile_px)) - 2),
    maxLevel: Math.ceil(Math.log2(longest)),
    getTileUrl: (level, x, y) => address(level, x, y),
  };
}

function addPairs(list, pairs) {
  list.replaceChildren();
  for (const [name, value] of pairs) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    list.append(term, text);
  }
}

function drawBar(info) {
  const bar = byId("bar");
  const pen = bar.getContext("2d");
  const step = bar.width / info.colours.length;
  info.colours.forEach((colour, i) => {
    pen.fillStyle = `rgb(${colour.join(",")})`;
    pen.fillRect(i * step, 0, step + 1, bar.height);
  });
}

function describeScale(info) {
  const layer = info.layers[byId("layer").selectedIndex];
  const scale = layer.scales[byId("scale").value];
  byId("bar-title").textContent = scale.title;
  byId("ticks").replaceChildren(
    ...scale.ticks.map(([place, words]) => {
      const tick = document.createElement("span");
      tick.textContent = words;
      tick.style.left = `${100 * place}%`;
      return tick;
    }),
  );
}

// The values of a model over its view. The choices are those of the first model; another shows its own value of
// that name, or none.
function setUpHeat({ viewer, info, prefix }) {
  let item = null;
  let wanted = 0;
  if (!prefix) {
    byId("heat").hidden = false;
    for (const layer of info.layers) byId("layer").add(new Option(layer.name));
    drawBar(info);
  }

  const opacity = () => (byId("heat-on").checked ? Number(byId("opacity").value) / 100 : 0);
  const show = () => {
    if (!prefix) describeScale(info);
    const layer = info.layers.findIndex((each) => each.name === byId("layer").value);
    const path = `${prefix}heat/${layer}/${byId("scale").value}`;
    wanted += 1;
    const asked = wanted;
    if (layer < 0) {
      if (item) viewer.world.removeItem(item);
      item = null;
      return;
    }
    viewer.addTiledImage({
      tileSource: tileSource(info, (level, x, y) => `${path}/${level}/${x}_${y}.png`),
      opacity: opacity(),
      success: (event) => {
        if (asked !== wanted) {
          viewer.world.removeItem(event.item);
          return;
        }
        if (item) viewer.world.removeItem(item);
        item = event.item;
        item.setOpacity(opacity());
        if (!prefix) document.body.dataset.layer = path;
      },
    });
  };
  const fade = () => item && item.setOpacity(opacity());
  byId("layer").addEventListener("change", show);
  byId("scale").addEventListener("change", show);
  byId("opacity").addEventListener("input", fade);
  byId("heat-on").addEventListener("change", fade);
  show();
}

function setUpShapes(info, outlines, prefix) {
  const group = byId("shapes");
  group.hidden = info.shapes.length === 0;
  for (const shape of info.shapes) {
    if (prefix) {
      byId(`shape-${shape.name}`).addEventListener("change", (event) => {
        outlines.visible.set(shape.name, event.target.checked);
        outlines.draw();
      });
      continue;
    }
    const label = document.createElement("label");
    const box = document.createElement("input");
    const swatch = document.createElement("span");
    box.type = "checkbox";
    box.checked = true;
    box.id = `shape-${shape.name}`;
    box.addEventListener("change", () => {
      outlines.visible.set(shape.name, box.checked);
      outlines.draw();
    });
    swatch.className = "swatch";
    swatch.style.borderColor = shape.colour;
    label.append(box, swatch, `${shape.name} (${shape.count})`);
    group.append(label);
  }
}

function setUpHover(viewer, info, index) {
  const tell = (position) => {
    const item = viewer.world.getItemAt(0);
    if (!item) return;
    const point = item.viewerElementToImageCoordinates(position);
    const inside = point.x >= 0 && point.y >= 0 && point.x < info.width && point.y < info.height;
    byId("place").textContent = inside ? `x ${Math.floor(point.x)}, y ${Math.floor(point.y)} px` : "–";
    const tile = inside ? index.at(point.x, point.y) : -1;
    const values = tile < 0 ? [] : info.layers.map((layer, i) => [layer.name, String(index.layers[i][tile])]);
    addPairs(byId("values"), values);
    byId("values").dataset.tile = String(tile);
  };
  new OpenSeadragon.MouseTracker({ element: viewer.container, moveHandler: (event) => tell(event.position) });
}

function setUpScaleBar(viewer, info) {
  if (!info.mpp) return;
  const bar = byId("scalebar");
  const update = () => {
    const item = viewer.world.getItemAt(0);
    if (!item) return;
    const screenPerImage = item.imageToViewportZoom(1);
    const zoom = viewer.viewport.getZoom(true) / screenPerImage;
    const micronsPerPixel = info.mpp[0] / zoom;
    const wanted = 140 * micronsPerPixel;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const microns = [5, 2, 1].map((n) => n * power).find((n) => n <= wanted);
    bar.hidden = false;
    bar.style.width = `${microns / micronsPerPixel}px`;
    bar.firstElementChild.textContent = microns >= 1000 ? `${microns / 1000} mm` : `${microns} µm`;
  };
  viewer.addHandler("update-viewport", update);
}

function tellNotes(notes) {
  byId("notes").append(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
}

// Opens the slide with the values below an address: those of the page's own model, or of a second one.
async function openSlide(element, prefix) {
  const [info, tiles, shapes] = await Promise.all(
    ["info.json", "tiles.json", "shapes.json"].map((name) => getJson(prefix + name)),
  );
  if (!prefix) {
    addPairs(byId("facts"), Object.entries(info.facts));
    tellNotes(info.notes);
  }
  const viewer = OpenSeadragon({
    element,
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: !prefix,
    navigatorPosition: "TOP_LEFT",
    maxZoomPixelRatio: 4,
    imageSmoothingEnabled: true,
    animationTime: 0.4,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    tileSources: tileSource(info, (level, x, y) => `slide/${level}/${x}_${y}.jpg`),
  });
  await new Promise((opened) => viewer.addOnceHandler("open", opened));
  const index = new TileIndex(tiles);
  const outlines = new Outlines(viewer, [info.width, info.height], shapes, index);
  setUpHover(viewer, info, index);
  byId("borders").addEventListener("change", (event) => {
    outlines.borders = event.target.checked;
    outlines.draw();
  });
  if (!prefix) {
    window.viewer = viewer; // For scripts in the console.
    byId("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(2));
    byId("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(0.5));
    byId("home").addEventListener("click", () => viewer.viewport.goHome());
    setUpScaleBar(viewer, info);
  }
  setUpShapes(info, outlines, prefix);
  if (info.layers.length) setUpHeat({ viewer, info, prefix });
  outlines.draw();
  return { viewer, outlines, info, prefix };
}

// Both views show the same place; the one under the pointer or with the focus leads.
function follow(first, second) {
  let leader = first.viewer;
  for (const [own, other] of [[first.viewer, second.viewer], [second.viewer, first.viewer]]) {
    const lead = () => (leader = own);
    own.addHandler("canvas-enter", lead);
    own.canvas.addEventListener("focus", lead);
    own.addHandler("update-viewport", () => {
      if (leader !== own) return;
      other.viewport.zoomTo(own.viewport.getZoom(true), null, true);
      other.viewport.panTo(own.viewport.getCenter(true), true);
    });
  }
  byId("zoom").addEventListener("click", () => (leader = first.viewer), true);
}

async function start() {
  const info = await getJson("info.json");
  document.title = info.slide_id;
  byId("title").textContent = info.slide_id;
  const predicted = Object.entries(info.prediction);
  addPairs(byId("predicted"), predicted);
  byId("prediction").hidden = predicted.length === 0;
  await openSlide(byId("slide"), "");
  document.body.dataset.ready = "yes";
}

addEventListener("load", () =>
  (document.body.dataset.case ? startCase() : start()).catch((error) => tellNotes([`The page can't load: ${error.message}`])),
);
