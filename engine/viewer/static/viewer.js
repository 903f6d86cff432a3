"use strict";
// The page around the slide: list of slides, switches, scale bar, the measurements of a nucleus.

const byId = (id) => document.getElementById(id);
const count = (value) => Math.round(value).toLocaleString("en");
const UNIT_MAGNIFICATION = 10; // micrometres along a screen pixel times magnification: 0.25 um/px is called 40x
const REFRESH_MS = 15000; // of the list: a run may be at work

const viewer = OpenSeadragon({
  element: byId("image"),
  drawer: "canvas",
  showNavigationControl: false,
  showNavigator: true,
  navigatorPosition: "BOTTOM_RIGHT",
  navigatorSizeRatio: 0.16,
  animationTime: 0.5,
  springStiffness: 9,
  maxZoomPixelRatio: 8,
  minZoomImageRatio: 0.7,
  visibilityRatio: 0.3,
  imageLoaderLimit: 6,
  timeout: 120000,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
});
const layer = new OutlineLayer(viewer, showState);
let slides = [];
let current = null; // the line of the list that is shown
let popupAt = null; // image pixels

// Slides ------------------------------------------------------------------------------------------------------------

async function fetchJson(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

async function refresh() {
  const found = await fetchJson("slides");
  if (JSON.stringify(found.slides) === JSON.stringify(slides)) return;
  slides = found.slides;
  byId("folder").textContent = found.folder;
  listSlides();
}

function listSlides() {
  const wanted = byId("find").value.trim().toLowerCase();
  byId("slides").replaceChildren(...slides.filter((slide) => slide.name.toLowerCase().includes(wanted)).map(lineOf));
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function lineOf(slide) {
  const done = slide.state === "done";
  const picture = element("img", { className: "thumb", alt: "", loading: "lazy", src: `slide/${slide.number}/thumbnail` });
  picture.addEventListener("error", () => picture.replaceWith(element("span", { className: "thumb" })));
  const below = done ? `${count(slide.nuclei ?? 0)} nuclei${slide.density ? `, ${count(slide.density)}/mm²` : ""}` : slide.error || slide.state;
  const text = element("span", {}, element("b", { textContent: slide.name, title: slide.name }),
    element("small", { textContent: below, title: below, className: slide.state === "failed" ? "bad" : "" }));
  if (slide.classes.length && slide.nuclei) {
    const parts = slide.classes.map((item) => {
      const part = element("i", { title: `${item.name}: ${item.percent.toFixed(1)} %` });
      part.style.cssText = `width:${item.percent}%;background:${item.color}`;
      return part;
    });
    text.append(element("span", { className: "bar" }, ...parts));
  }
  const button = element("button", { type: "button", disabled: !done }, picture, text);
  if (slide.number === current?.number) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => openSlide(slide));
  return element("li", {}, button);
}

async function openSlide(slide, place) {
  current = slide;
  closePopup();
  say("");
  listSlides();
  byId("name").textContent = slide.name;
  document.title = `${slide.name} – nuclix viewer`;
  const address = `slide/${slide.number}`;
  let facts;
  try {
    facts = await fetchJson(`${address}/facts`);
  } catch (error) {
    viewer.close();
    layer.reset();
    say(error.message);
    return;
  }
  if (current !== slide) return;
  const density = slide.density ? `${count(slide.density)} per mm²` : "";
  byId("figures").textContent = [`${count(facts.nuclei)} nuclei`, density, `${count(facts.width)} × ${count(facts.height)} px`,
    facts.mpp ? `${facts.mpp.toPrecision(3)} µm/px` : ""].filter(Boolean).join("  ·  ");
  for (const button of document.querySelectorAll("[data-mag]")) button.disabled = !facts.mpp;
  if (facts.problem) say(`The slide can't be shown: ${facts.problem}`);
  listClasses(facts);
  viewer.addOnceHandler("open", () => { layer.show(facts, address); if (place) goTo(facts, place); });
  viewer.open({
    width: facts.width, height: facts.height, tileSize: facts.tile, minLevel: 0, maxLevel: facts.max_level,
    getTileUrl: (level, x, y) => facts.problem ? `${address}/thumbnail` : `${address}/tile/${level}/${x}/${y}`,
    ...(facts.problem ? { maxLevel: 0, tileSize: Math.max(facts.width, facts.height) } : {}),
  });
}

function listClasses(facts) {
  layer.options.hidden = new Set();
  byId("classes").replaceChildren(...facts.classes.map((item, kind) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("input", () => {
      layer.options.hidden[box.checked ? "delete" : "add"](kind);
      layer.set({});
    });
    const swatch = element("i", {});
    swatch.style.background = item.color;
    return element("li", {}, element("label", {}, box, swatch, element("span", { textContent: item.name, title: item.name }),
      element("b", { textContent: count(facts.counts[kind]) })));
  }));
}

function say(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

// Zoom, scale bar, address ---------------------------------------------------------------------------------------------

// Screen pixels per image pixel to be reached.
function setScale(scale, centre) {
  const port = viewer.viewport;
  port.zoomTo((scale * layer.facts.width) / port.getContainerSize().x, null, Boolean(centre));
  if (centre) port.panTo(centre, true);
  port.applyConstraints(Boolean(centre));
}

function goTo(facts, place) {
  setScale(place.scale, new OpenSeadragon.Point(place.x / facts.width, place.y / facts.width));
}

function showState() {
  const facts = layer.facts;
  if (!facts) return;
  const { scale, x, y } = layer.view();
  const length = niceLength(130 / scale, facts.mpp);
  byId("scalebar").querySelector("i").style.width = `${length.pixels * scale}px`;
  byId("scalebar").querySelector("span").textContent = length.text;
  byId("magnification").textContent = facts.mpp ? `${((UNIT_MAGNIFICATION * scale) / facts.mpp).toPrecision(2)}×` : "";
  byId("loading").textContent = layer.loading.size ? "loading outlines …" : "";
  if (layer.failed) say(layer.failed);
  if (popupAt && !layer.zoomedIn) closePopup();
  if (popupAt) placePopup(x + popupAt.x * scale, y + popupAt.y * scale);
}

// The largest 1, 2 or 5 times a power of ten within so many image pixels.
function niceLength(pixels, mpp) {
  const span = pixels * (mpp || 1);
  const power = 10 ** Math.floor(Math.log10(span));
  const value = [5, 2, 1].map((step) => step * power).find((step) => step <= span);
  const text = !mpp ? `${value} px` : value >= 1000 ? `${value / 1000} mm` : `${value} µm`;
  return { pixels: value / (mpp || 1), text };
}

function keepAddress() {
  if (!layer.facts || !current) return;
  const { scale, x, y } = layer.view();
  const area = viewer.viewport.getContainerSize();
  const middle = [(area.x / 2 - x) / scale, (area.y / 2 - y) / scale].map(Math.round);
  const wanted = new URLSearchParams({ slide: current.name, x: middle[0], y: middle[1], scale: scale.toPrecision(3) });
  history.replaceState(null, "", `#${wanted}`);
}

viewer.addHandler("animation-finish", keepAddress);
viewer.addHandler("tile-load-failed", ({ message, tile }) => { if (tile && message !== "Image load aborted") reportTile(tile); });

async function reportTile(tile) {
  const response = await fetch(tile.getUrl());
  if (!response.ok && response.status !== 404) say(await response.text());
}

viewer.addHandler("canvas-key", (event) => {
  if (/^[frwasd]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true; // ours, or turning the slide
});

viewer.innerTracker.moveHandler = (event) => {
  if (!layer.facts) return;
  const { scale, x, y } = layer.view();
  byId("place").textContent = `x ${count((event.position.x - x) / scale)}, y ${count((event.position.y - y) / scale)}`;
};

for (const button of document.querySelectorAll("#zoom button")) {
  button.addEventListener("click", () => {
    if (!layer.facts) return;
    if (button.dataset.mag) setScale((Number(button.dataset.mag) * layer.facts.mpp) / UNIT_MAGNIFICATION);
    else if (button.dataset.zoom === "home") viewer.viewport.goHome();
    else viewer.viewport.zoomBy(button.dataset.zoom === "in" ? 2 : 0.5).applyConstraints();
  });
}

// Switches -------------------------------------------------------------------------------------------------------------

for (const name of ["outlines", "fill", "density"]) {
  byId(name).addEventListener("input", (event) => layer.set({ [name]: event.target.checked }));
}
byId("color").addEventListener("input", (event) => {
  byId("ramp").hidden = event.target.value !== "score";
  layer.set({ color: event.target.value });
});
byId("ramp").querySelector("i").style.background = `linear-gradient(90deg,${RAMP.map((color) => `rgb(${color})`)})`;
byId("least").addEventListener("input", (event) => {
  byId("least-shown").textContent = Number(event.target.value).toFixed(2);
  layer.set({ least: Number(event.target.value) });
});
byId("find").addEventListener("input", listSlides);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /search|select/.test(event.target.type ?? "")) return;
  const box = { o: "outlines", f: "fill", d: "density" }[event.key.toLowerCase()];
  if (box) byId(box).click();
  if (event.key === "Escape") closePopup();
  if (event.key === "0") viewer.viewport.goHome();
  if (event.key === "[" || event.key === "]") step(event.key === "]" ? 1 : -1);
});

function step(by) {
  const done = slides.filter((slide) => slide.state === "done");
  const next = done[done.findIndex((slide) => slide.number === current?.number) + by];
  if (next) openSlide(next);
}

// Measurements ---------------------------------------------------------------------------------------------------------

viewer.addHandler("canvas-click", async (event) => {
  if (!event.quick) return;
  const found = layer.at(event.position);
  layer.chosen = found;
  layer.request();
  if (!found) { closePopup(); return; }
  const nucleus = await fetchJson(`${layer.address}/nucleus/${found.nucleus[0]}`);
  if (layer.chosen === found) showPopup(nucleus, layer.colorOf(found.nucleus));
});

function showPopup(nucleus, color) {
  popupAt = { x: nucleus.x, y: nucleus.y };
  const swatch = element("i", {});
  swatch.style.background = color;
  byId("popup").querySelector("h2").replaceChildren(swatch, nucleus.class || "Nucleus");
  const rows = Object.entries(nucleus.measurements).map(([name, value]) => [name, Number(value.toPrecision(4)).toString()]);
  rows.push(["Position (px)", `${count(nucleus.x)}, ${count(nucleus.y)}`]);
  byId("popup").querySelector("tbody").replaceChildren(...rows.map(([name, value]) =>
    element("tr", {}, element("td", { textContent: name }), element("td", { textContent: value }))));
  byId("popup").hidden = false;
  showState();
}

function placePopup(x, y) {
  const popup = byId("popup"), area = viewer.viewport.getContainerSize();
  popup.classList.toggle("left", x > area.x / 2);
  const half = popup.offsetHeight / 2;
  popup.style.left = `${x}px`;
  popup.style.top = `${Math.min(Math.max(y, half + 8), Math.max(half + 8, area.y - half - 8))}px`;
}

function closePopup() {
  popupAt = null;
  byId("popup").hidden = true;
  layer.chosen = null;
  layer.request();
}

byId("popup-close").addEventListener("click", closePopup);

async function start() {
  await refresh();
  const asked = new URLSearchParams(location.hash.slice(1));
  const done = slides.filter((slide) => slide.state === "done");
  const first = done.find((slide) => slide.name === asked.get("slide")) ?? done[0];
  if (!first) { say("No slide is finished yet."); return; }
  const place = asked.has("scale") && first.name === asked.get("slide") ? Object.fromEntries(["x", "y", "scale"].map((name) => [name, Number(asked.get(name))])) : null;
  await openSlide(first, place);
}

start().catch((error) => say(error.message));
setInterval(() => refresh().catch(() => say("The viewer has ended: start `nuclix view` again.")), REFRESH_MS);
