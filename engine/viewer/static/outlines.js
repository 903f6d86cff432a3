"use strict";
// Nuclei on top of the slide: tiles of outlines are fetched for what is on screen and drawn on a canvas of their own.

const FINEST_DENSITY_UM = 1.4; // micrometres along a screen pixel beyond which a nucleus is too small to be outlined
const MOST_TILES = 500; // on screen
const KEPT_TILES = 1500;
const PARALLEL = 6;
const SCORE_STEPS = 16;
const RAMP = [[255, 224, 0], [0, 178, 122], [31, 63, 191]]; // from doubtful to sure; not the colours of tissue

function rampColor(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[low].map((value, channel) => Math.round(value + (RAMP[low + 1][channel] - value) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}

class OutlineLayer {
  constructor(viewer, onChange) {
    this.viewer = viewer;
    this.onChange = onChange;
    this.options = { outlines: true, fill: false, density: true, color: "class", least: 0, hidden: new Set() };
    this.canvas = document.createElement("canvas");
    this.canvas.className = "layer";
    viewer.canvas.append(this.canvas);
    this.reset();
    // In the frame in which the slide is drawn: a frame later, outlines would swim over the tissue while it moves.
    viewer.addHandler("update-viewport", () => this.draw());
    for (const name of ["open", "resize"]) viewer.addHandler(name, () => this.request());
  }

  reset() {
    this.facts = null;
    this.tiles = new Map();
    this.waiting = [];
    this.loading = new Set();
    this.densityImage = null;
    this.chosen = null;
    this.failed = "";
  }

  show(facts, address) {
    this.reset();
    this.facts = facts;
    this.address = address;
    const image = new Image();
    image.onload = () => { if (this.facts === facts) { this.densityImage = image; this.request(); } };
    image.src = `${address}/density`;
    this.request();
  }

  set(changes) {
    Object.assign(this.options, changes);
    for (const tile of this.tiles.values()) tile.groups = null;
    this.request();
  }

  request() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  // Screen pixels per image pixel, and where the image's corner lies on screen.
  view() {
    const port = this.viewer.viewport;
    const corner = port.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const end = port.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
    return { x: corner.x, y: corner.y, scale: (end.x - corner.x) / this.facts.width };
  }

  get zoomedIn() {
    return (this.facts.mpp || 0.25) / this.view().scale <= FINEST_DENSITY_UM;
  }

  visibleTiles() {
    const { x, y, scale } = this.view();
    const edge = this.facts.outline_tile * this.facts.downsample;
    const margin = 40 * this.facts.downsample;
    const last = (size) => Math.ceil(size / edge) - 1;
    const left = Math.max(0, Math.floor((-x / scale - margin) / edge));
    const top = Math.max(0, Math.floor((-y / scale - margin) / edge));
    const right = Math.min(last(this.facts.width), Math.floor(((this.canvas.clientWidth - x) / scale + margin) / edge));
    const bottom = Math.min(last(this.facts.height), Math.floor(((this.canvas.clientHeight - y) / scale + margin) / edge));
    const found = [];
    if ((right - left + 1) * (bottom - top + 1) > MOST_TILES) return found;
    for (let row = top; row <= bottom; row += 1) for (let col = left; col <= right; col += 1) found.push({ col, row });
    return found;
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.facts || !this.viewer.isOpen()) return;
    this.waiting = [];
    if (this.zoomedIn) this.drawOutlines(context, ratio);
    else if (this.options.density && this.densityImage) this.drawDensity(context, ratio);
    this.onChange();
    this.fetchNext();
  }

  drawDensity(context, ratio) {
    const { x, y, scale } = this.view();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.densityImage, x * ratio, y * ratio, this.facts.width * scale * ratio, this.facts.height * scale * ratio);
  }

  drawOutlines(context, ratio) {
    if (!this.options.outlines && !this.options.fill) return;
    const { x, y, scale } = this.view();
    const unit = (scale * this.facts.downsample * ratio) / this.facts.outline_units;
    const step = this.facts.outline_tile * this.facts.downsample * scale;
    const thick = Math.min(2.6, Math.max(0.7, (scale / (this.facts.mpp || 0.25)) * 0.75)) * ratio;
    for (const { col, row } of this.visibleTiles()) {
      const key = `${col}/${row}`;
      const tile = this.tiles.get(key);
      if (!tile) { this.waiting.push({ key, col, row }); continue; }
      this.tiles.delete(key); // the last to be dropped is the last that was drawn
      this.tiles.set(key, tile);
      context.setTransform(unit, 0, 0, unit, (x + col * step) * ratio, (y + row * step) * ratio);
      context.lineWidth = thick / unit;
      context.lineJoin = "round";
      for (const [color, path] of this.grouped(tile)) {
        if (this.options.fill) {
          context.globalAlpha = 0.35;
          context.fillStyle = color;
          context.fill(path, "evenodd");
          context.globalAlpha = 1;
        }
        if (this.options.outlines) { context.strokeStyle = color; context.stroke(path); }
      }
      if (this.chosen && this.chosen.key === key) this.drawChosen(context, unit, ratio);
    }
  }

  drawChosen(context, unit, ratio) {
    const path = ringsPath(this.chosen.nucleus[3]);
    for (const [color, width] of [["#fff", 5], ["#10151c", 2.4]]) {
      context.strokeStyle = color;
      context.lineWidth = (width * ratio) / unit;
      context.stroke(path);
    }
  }

  // Paths of a tile, one a colour.
  grouped(tile) {
    if (!tile.groups) {
      tile.groups = new Map();
      for (const nucleus of tile.nuclei) {
        if (!this.isShown(nucleus)) continue;
        const color = this.colorOf(nucleus);
        if (!tile.groups.has(color)) tile.groups.set(color, new Path2D());
        addRings(tile.groups.get(color), nucleus[3]);
      }
    }
    return tile.groups;
  }

  isShown([, kind, score]) {
    return !this.options.hidden.has(kind) && (score === null || score >= this.options.least);
  }

  colorOf([, kind, score]) {
    if (this.options.color === "score") return score === null ? "#888" : rampColor(Math.round(score * SCORE_STEPS) / SCORE_STEPS);
    return this.facts.classes[kind] ? this.facts.classes[kind].color : "#00c000";
  }

  fetchNext() {
    while (this.loading.size < PARALLEL && this.waiting.length) {
      const tile = this.waiting.shift();
      if (!this.loading.has(tile.key) && !this.tiles.has(tile.key)) this.fetchTile(tile);
    }
  }

  async fetchTile({ key, col, row }) {
    const facts = this.facts;
    const loading = this.loading;
    loading.add(key);
    try {
      const response = await fetch(`${this.address}/outlines/${col}/${row}`);
      if (!response.ok) throw new Error(await response.text());
      const tile = await response.json();
      if (this.facts === facts) {
        this.tiles.set(key, tile);
        while (this.tiles.size > KEPT_TILES) this.tiles.delete(this.tiles.keys().next().value);
      }
    } catch (error) {
      if (this.facts === facts) { this.failed = String(error.message || error); this.tiles.set(key, { nuclei: [] }); }
    } finally {
      loading.delete(key);
      if (this.facts === facts) this.request();
    }
  }

  // The nucleus under a point of the screen, or null: a later one lies on top.
  at(point) {
    if (!this.facts || !this.zoomedIn) return null;
    const { x, y, scale } = this.view();
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (const { col, row } of this.visibleTiles()) {
      const key = `${col}/${row}`;
      const tile = this.tiles.get(key);
      if (!tile) continue;
      const toUnits = (place, start, index) =>
        ((place - start) / scale / this.facts.downsample - index * this.facts.outline_tile) * this.facts.outline_units;
      const across = toUnits(point.x, x, col), down = toUnits(point.y, y, row);
      for (const nucleus of tile.nuclei) {
        if (!this.isShown(nucleus) || !inBox(nucleus[3][0], across, down)) continue;
        if (context.isPointInPath(ringsPath(nucleus[3]), across, down, "evenodd")) return { key, nucleus };
      }
    }
    return null;
  }
}

function addRings(path, rings) {
  for (const ring of rings) {
    path.moveTo(ring[0], ring[1]);
    for (let place = 2; place < ring.length; place += 2) path.lineTo(ring[place], ring[place + 1]);
    path.closePath();
  }
}

function ringsPath(rings) {
  const path = new Path2D();
  addRings(path, rings);
  return path;
}

function inBox(ring, x, y) {
  let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
  for (let place = 0; place < ring.length; place += 2) {
    left = Math.min(left, ring[place]); right = Math.max(right, ring[place]);
    top = Math.min(top, ring[place + 1]); bottom = Math.max(bottom, ring[place + 1]);
  }
  return x >= left && x <= right && y >= top && y <= bottom;
}
