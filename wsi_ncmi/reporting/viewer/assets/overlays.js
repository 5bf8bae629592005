"use strict";
// What is drawn over the slide in the browser: outlines and borders of tiles, and the look-up of the tile under
// the pointer. All coordinates are level-0 pixels.

class TileIndex {
  constructor(tiles) {
    this.coords = tiles.coords;
    [this.width, this.height] = tiles.size;
    this.layers = tiles.layers;
    this.count = tiles.coords.length / 2;
    this.cells = new Map();
    for (let i = 0; i < this.count; i += 1) {
      const key = this.key(this.coords[2 * i], this.coords[2 * i + 1]);
      if (!this.cells.has(key)) this.cells.set(key, []);
      this.cells.get(key).push(i);
    }
  }

  key(x, y) {
    return `${Math.floor(x / this.width)},${Math.floor(y / this.height)}`;
  }

  // The tile that holds a point; of several the one whose middle is nearest; -1 where there is none.
  at(x, y) {
    let best = -1;
    let nearest = Infinity;
    for (const dx of [0, -1]) {
      for (const dy of [0, -1]) {
        for (const i of this.cells.get(this.key(x + dx * this.width, y + dy * this.height)) || []) {
          const left = this.coords[2 * i];
          const top = this.coords[2 * i + 1];
          if (x < left || y < top || x >= left + this.width || y >= top + this.height) continue;
          const distance = Math.hypot(x - left - this.width / 2, y - top - this.height / 2);
          if (distance < nearest) [best, nearest] = [i, distance];
        }
      }
    }
    return best;
  }
}

class Outlines {
  constructor(viewer, size, shapes, index) {
    this.viewer = viewer;
    this.size = size;
    this.shapes = shapes;
    this.index = index;
    this.visible = new Map(shapes.map((shape) => [shape.name, true]));
    this.borders = false;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "outlines";
    viewer.canvas.appendChild(this.canvas);
    for (const event of ["update-viewport", "open", "resize", "animation"]) viewer.addHandler(event, () => this.draw());
  }

  draw() {
    const box = this.viewer.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.canvas.style.width = `${box.width}px`;
      this.canvas.style.height = `${box.height}px`;
    }
    const item = this.viewer.world.getItemAt(0);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!item) return;
    const corner = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const far = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(this.size[0], this.size[1]));
    const scale = ((far.x - corner.x) / this.size[0]) * ratio;
    pen.setTransform(scale, 0, 0, scale, corner.x * ratio, corner.y * ratio);
    const view = [
      -corner.x * ratio / scale, -corner.y * ratio / scale,
      (width - corner.x * ratio) / scale, (height - corner.y * ratio) / scale,
    ];
    if (this.borders && this.index) this.drawBorders(pen, scale, view);
    for (const shape of this.shapes) {
      if (!this.visible.get(shape.name)) continue;
      pen.strokeStyle = shape.colour;
      pen.lineWidth = (2 * ratio) / scale;
      pen.beginPath();
      for (const polygon of shape.polygons) {
        for (const ring of polygon) {
          pen.moveTo(ring[0], ring[1]);
          for (let i = 2; i < ring.length; i += 2) pen.lineTo(ring[i], ring[i + 1]);
          if (!shape.open) pen.closePath();
        }
      }
      pen.stroke();
    }
  }

  drawBorders(pen, scale, view) {
    const { coords, width, height, count } = this.index;
    if (width * scale < 4) return; // Nothing but lines would be seen.
    pen.strokeStyle = "rgba(20, 20, 20, 0.6)";
    pen.lineWidth = 1 / scale;
    pen.beginPath();
    for (let i = 0; i < count; i += 1) {
      const [x, y] = [coords[2 * i], coords[2 * i + 1]];
      if (x < view[2] && y < view[3] && x + width > view[0] && y + height > view[1]) pen.rect(x, y, width, height);
    }
    pen.stroke();
  }
}
