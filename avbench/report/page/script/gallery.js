// ---- the gallery: all clips of all runs as a wall, built and loaded as it is scrolled to

const TILES = 96; // are added at a time

const gallery = { shown: [], placed: 0 };
const part = (name) => $(`gallery-${name}`);

const tagsOf = (prompt) => Object.entries(prompt.tags).flatMap(([name, values]) => values.map((value) => `${name}: ${value}`));
function fillGalleryChoices() {
  const at = part("subset").value === "" ? null : +part("subset").value;
  const names = at === null ? Object.keys(data.metrics) : Object.keys(data.values[data.subsets[at].name] ?? {});
  const known = names.filter((name) => data.subsets.some((one) => data.values[one.name]?.[name]));
  const tags = [...new Set(data.subsets.filter((_, k) => at === null || k === at).flatMap((one) => one.prompts.flatMap(tagsOf)))].sort();
  for (const [select, nothing, choices] of [["tag", "any", tags], ["metric", "none", known]]) {
    const kept = part(select).value;
    part(select).replaceChildren(new Option(nothing, ""), ...choices.map((one) => new Option(words(one), one)));
    part(select).value = choices.includes(kept) ? kept : "";
    part(select).closest("label").hidden = !choices.length;
  }
}

// Every clip that its run was asked for: a tile each, with or without a clip.
function* tiles() {
  const metric = part("metric").value;
  for (const [at, of] of data.subsets.entries()) {
    const known = metric ? data.values[of.name]?.[metric] : null;
    for (const [item, one] of items(at).entries()) {
      const found = clipsOf(at, one);
      for (const run of data.runs.keys()) {
        const clip = found[run];
        if (!clip) continue; // the run was not asked for it
        const whole = Boolean(data.cards[clip.sha256]);
        yield { at, item, one, run, clip, whole, refused: Boolean(clip.refused), value: known?.[run]?.[item] ?? null };
      }
    }
  }
}

function chosenTiles() {
  const [of, run, tag, metric, state] = ["subset", "run", "tag", "metric", "state"].map((name) => part(name).value);
  const [from, to] = ["from", "to"].map((name) => (part(name).value === "" ? null : +part(name).value));
  const kept = [...tiles()].filter((tile) => (of === "" || tile.at === +of) && (run === "" || tile.run === +run)
    && (tag === "" || tagsOf(tile.one.prompt).includes(tag))
    && (state === "" || (state === "whole" ? tile.whole : state === "refused" ? tile.refused : !tile.whole && !tile.refused))
    && (from === null && to === null || tile.value !== null && tile.value >= (from ?? -Infinity) && tile.value <= (to ?? Infinity)));
  const side = { lowest: 1, highest: -1 }[part("order").value];
  if (metric && side) kept.sort((a, b) => (a.value === null) - (b.value === null) || side * (a.value - b.value));
  return kept;
}

function showGallery() {
  const metric = part("metric").value;
  for (const name of ["from", "to", "order"]) part(name).closest("label").hidden = !metric;
  gallery.shown = chosenTiles();
  gallery.placed = 0;
  part("wall").querySelectorAll(".tile").forEach((one) => { seenTiles.unobserve(one); unloadTile(one); });
  part("wall").replaceChildren();
  const count = (test) => gallery.shown.filter(test).length;
  const [refused, lost] = [count((one) => one.refused), count((one) => !one.whole && !one.refused)];
  part("count").textContent = [`${gallery.shown.length} clips`, lost && `${lost} without a clip`, refused && `${refused} refused by the model`].filter(Boolean).join(", ");
  moreTiles();
}

function moreTiles() {
  const metric = part("metric").value, next = gallery.shown.slice(gallery.placed, gallery.placed + TILES);
  gallery.placed += next.length;
  part("wall").append(...next.map((tile) => {
    const { one, run, clip, whole, refused, value, at } = tile, { name, colour } = data.runs[run];
    const told = data.subsets[at].seeds.length > 1 ? `${one.prompt.id} · ${one.seed}` : one.prompt.id;
    const why = refused ? "refused by the model: " : "no clip: ";
    const stage = element("div", { className: "stage" }, ...(whole ? [] : [element("p", { className: "why", textContent: why + (clip.missing ?? "it cannot be shown") })]));
    if (whole) { const card = data.cards[clip.sha256]; stage.style.aspectRatio = `${card.width} / ${card.height}`; }
    const dot = element("i");
    dot.style.background = colour;
    const text = element("span", {}, dot, ` ${name}`, element("small", { textContent: told }), ...(metric ? [element("b", { textContent: short(value) })] : []));
    const made = element("button", { type: "button", className: `tile${whole ? "" : " lost"}`, tile }, stage, text);
    made.setAttribute("aria-label", `${stage.textContent} ${told}${metric ? ` ${short(value)}, ${words(metric)}` : ","} of ${name}: watch`);
    seenTiles.observe(made);
    return made;
  }));
  part("more").hidden = gallery.placed >= gallery.shown.length;
}

// A tile has a video only while it is near the screen.
const seenTiles = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) loadTile(target); else unloadTile(target);
}, { rootMargin: "400px" });
function loadTile(made) {
  const { whole, clip } = made.tile, stage = made.firstChild;
  if (!whole || stage.firstChild) return;
  stage.append(element("video", { src: address(clip.sha256), muted: true, loop: true, playsInline: true, preload: "metadata" }));
}
function unloadTile(made) {
  const video = made.querySelector("video");
  if (!video) return;
  const { src } = video;
  video.remove();
  unload(video);
  if (data.inside) URL.revokeObjectURL(src);
}
const tileOf = (event) => event.target.closest?.(".tile");
for (const begins of ["pointerover", "focusin"]) part("wall").addEventListener(begins, (event) => { tileOf(event)?.querySelector("video")?.play().catch(() => {}); });
for (const ends of ["pointerout", "focusout"]) part("wall").addEventListener(ends, (event) => {
  if (!tileOf(event)?.contains(event.relatedTarget)) tileOf(event)?.querySelector("video")?.pause();
});
part("wall").addEventListener("click", (event) => {
  const made = tileOf(event);
  if (made) openIn(data.subsets[made.tile.at].name, part("metric").value, made.tile.one.prompt.id, made.tile.one.seed);
});

part("subset").append(new Option("all", ""), ...data.subsets.map((one, at) => new Option(one.name, at)));
part("run").append(new Option("all", ""), ...runNames.map((name, run) => new Option(name, run)));
part("filters").addEventListener("submit", (event) => event.preventDefault());
part("filters").addEventListener("change", (event) => {
  if (event.target === part("subset")) fillGalleryChoices();
  if (event.target === part("metric")) part("from").value = part("to").value = "";
  showGallery();
});
part("more").addEventListener("click", moreTiles);
// Built when it comes near the screen; more is added when its end does.
new IntersectionObserver(([entry]) => {
  if (entry.isIntersecting && gallery.placed) moreTiles();
}, { rootMargin: "600px" }).observe(part("more"));
const galleryNear = new IntersectionObserver(([entry]) => {
  if (!entry.isIntersecting) return;
  galleryNear.disconnect();
  fillGalleryChoices();
  showGallery();
}, { rootMargin: "300px" });
galleryNear.observe($("gallery"));
