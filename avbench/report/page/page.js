// The page's script: clips in lockstep, the pair behind a difference, blind votes, origins, saved plots. What comes from the data is set as text only.
"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const runNames = data.runs.map((run) => run.name);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => (value === null || value === undefined ? "–" : String(+value.toPrecision(4)));

function bytes(encoded) {
  const text = atob(encoded), made = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) made[k] = text.charCodeAt(k);
  return made;
}

// ---- plots: a dot opens its clips; saved, they keep the colours that they have here

document.addEventListener("click", (event) => {
  const dot = event.target.closest("[data-prompt]"), plot = event.target.closest(".plot");
  if (dot && plot) openIn(plot.dataset.subset, plot.dataset.metric, dot.dataset.prompt);
  const save = event.target.closest("[data-save]");
  if (save) keep([...save.closest("figure").querySelectorAll("svg")].find((one) => one.clientWidth), save.dataset.save);
});
document.addEventListener("pointerover", (event) => {
  const dot = event.target.closest("[data-prompt]");
  if (dot && !dot.firstChild) {
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = dot.dataset.prompt;
    dot.append(title);
  }
});

const LOOKS = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "font", "text-anchor"];
function standalone(drawing) {
  const copy = drawing.cloneNode(true), [, , width, height] = drawing.getAttribute("viewBox").split(" ");
  const [from, to] = [drawing, copy].map((one) => [...one.querySelectorAll("*")]);
  from.forEach((one, k) => {
    const look = getComputedStyle(one);
    LOOKS.forEach((name) => to[k].style.setProperty(name, look.getPropertyValue(name)));
  });
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ width, height, fill: ink("--raised") })) ground.setAttribute(name, value);
  copy.prepend(ground);
  for (const [name, value] of Object.entries({ width, height })) copy.setAttribute(name, value);
  return { text: new XMLSerializer().serializeToString(copy), width: +width, height: +height };
}

async function keep(drawing, form) {
  const { text, width, height } = standalone(drawing), name = drawing.getAttribute("aria-label").split(":")[0];
  let file = new Blob([text], { type: "image/svg+xml" });
  if (form === "png") {
    const picture = new Image(), canvas = element("canvas", { width: 3 * width, height: 3 * height });
    picture.src = URL.createObjectURL(file);
    await picture.decode();
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(picture.src);
    file = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  }
  download(file, `${name.replace(/[^\w.-]+/g, "-")}.${form}`);
}
function download(file, name) {
  const saved = URL.createObjectURL(file);
  element("a", { href: saved, download: name }).click();
  retire([saved]);
}
function retire(addresses) { // later, because a video or a download may still ask for what it was given
  const old = addresses.splice(0);
  setTimeout(() => old.forEach((one) => URL.revokeObjectURL(one)), 10000);
}

// Printed, tables and plots are unfolded, and folded again afterwards.
const folded = [];
addEventListener("beforeprint", () => document.querySelectorAll("#answer details, [id^=subset-] details, #together details, #coverage details").forEach((one) => {
  if (!one.open) folded.push(one);
  one.open = true;
}));
addEventListener("afterprint", () => folded.splice(0).forEach((one) => { one.open = false; }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => players.forEach((one) => one.waves()));

document.addEventListener("change", (event) => {
  if (event.target.matches(".switch")) event.target.closest("details").classList.toggle("whole", event.target.checked);
});

// ---- navigation

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const inView = new Set();
const sections = new IntersectionObserver((entries) => {
  for (const entry of entries) inView[entry.isIntersecting ? "add" : "delete"](entry.target.id);
  const first = [...links.keys()].find((id) => inView.has(id));
  links.forEach((link, id) => link.classList.toggle("here", id === first));
  if (first) links.get(first).closest("ul").scrollLeft = links.get(first).offsetLeft - innerWidth / 3;
}, { rootMargin: "-25% 0px -55% 0px" });
for (const id of links.keys()) sections.observe($(id));

// ---- origins

function facts(pairs) {
  $("origin-facts").replaceChildren(...pairs.filter(([, told]) => told !== null && told !== undefined && told !== "")
    .flatMap(([name, told]) => [element("dt", { textContent: name }), element("dd", { textContent: told, className: /^[0-9a-f]{64}$/.test(told) ? "hash" : "" })]));
}

function originOf(score) {
  const metric = data.metrics[score.metric], origin = data.origins.find((one) => one.name === score.model);
  const subset = data.subsets.find((one) => one.name === score.subset);
  $("origin-title").textContent = `${score.metric} of ${score.model} on ${score.subset}`;
  const parts = ["macro", "micro"].includes(score.subset)
    ? data.scores.filter((one) => one.metric === score.metric && one.model === score.model && one.value !== null && data.subsets.some((of) => of.name === one.subset)) : [];
  facts([
    ["question", metric.question],
    ["value", score.missing ?? [score.value, metric.unit].filter((part) => part !== "").join(" ")],
    ["too few clips", score.too_few],
    ["95 % interval", score.low === null ? null : `${score.low} … ${score.high}`],
    ["n", `${score.n} clips` + (score.unmeasured ? `; ${score.unmeasured} without a number` : "")],
    ["null", score.null === null ? null : `${score.null} ± ${score.null_sd} (sd); p ${score.p}; excess ${score.excess}`],
    ["floor", score.floor], ["reference", score.reference],
    ["in the reference as well", score.shared ? `${score.shared} clips` : null],
    ["protocol", score.protocol], ["subset", subset && subset.digest],
    ...parts.map((one) => [`on ${one.subset}`, `${one.value}, ${one.n} clips, protocol ${one.protocol}`]),
    ...Object.entries(origin.hashes).map(([name, hash]) => [name, hash]),
    ["avbench", origin.run.versions.avbench],
  ]);
  const { sample, measure, evaluate } = origin.commands;
  $("origin-commands").textContent = `${sample}\n${measure} ${score.metric}\n${evaluate} ${score.metric}`;
  $("origin-protocol").textContent = JSON.stringify(data.protocols[score.protocol ?? parts[0]?.protocol] ?? {}, null, 1);
}

function originOfDifference(row) {
  const scores = data.scores.filter((one) => one.metric === row.metric && [row.run, row.against].includes(one.model)
    && (one.subset === row.subset || ["macro", "micro"].includes(row.subset)));
  $("origin-title").textContent = `${row.metric}: ${row.run} minus ${row.against}, ${row.subset}`;
  facts([
    ["difference", row.difference], ["95 % interval", row.low === null ? null : `${row.low} … ${row.high}`],
    ["p", row.p], ["p after Holm", row.p_holm === null ? null : `${row.p_holm}, of a family of ${row.family}`],
    ["clips", row.paired ? `${row.pairs} pairs of ${row.prompts} prompts` : `${row.pairs}, not paired`],
    ["dropped", row.dropped ? `${row.dropped} clips that one side lacks` : null],
    ["detectable", row.detectable === null ? null : `${row.detectable} with 80 % power`],
    ["needed", row.needed === null ? null : `${row.needed} prompts for the observed difference`], ["remark", row.mark],
    ...scores.map((one) => [`${one.model} on ${one.subset}`, `${one.missing ?? one.value}, protocol ${one.protocol}`]),
    ...data.origins.filter((one) => [row.run, row.against].includes(one.name))
      .flatMap((one) => Object.entries(one.hashes).map(([name, hash]) => [`${one.name}/${name}`, hash])),
  ]);
  const pair = [row.against, row.run].map((name) => data.origins.find((one) => one.name === name));
  $("origin-commands").textContent = pair.map((one) => one.commands.sample).join("\n")
    + `\navbench compare ${pair.map((one) => one.path).join(" ")}`;
  $("origin-protocol").textContent = JSON.stringify(scores.length ? data.protocols[scores[0].protocol] : {}, null, 1);
}

document.addEventListener("click", (event) => {
  const number = event.target.closest(".number");
  if (!number) return;
  if (number.dataset.score) originOf(data.scores[number.dataset.score]);
  else originOfDifference(data.differences[number.dataset.difference]);
  $("origin").showModal();
});
$("origin").addEventListener("click", (event) => { if (event.target === $("origin")) $("origin").close(); });

// ---- items: a prompt with a seed

let subset = 0, order = [], current = -1;
const items = (at = subset) => data.subsets[at].prompts.flatMap((prompt) => data.subsets[at].seeds.map((seed) => ({ prompt, seed })));
const label = ({ prompt, seed }) => (data.subsets[subset].seeds.length > 1 ? `${prompt.id} · ${seed}` : prompt.id);
const clipsOf = (at, { prompt, seed }) => data.clips[[data.subsets[at].name, prompt.id, seed].join("/")] ?? [];
const captions = ({ prompt }) => ({ video: prompt.video, audio: prompt.audio });
const valuesOf = (metric) => data.values[data.subsets[subset].name]?.[metric] ?? runNames.map(() => []);

const way = (metric) => data.metrics[metric]?.direction;
// What prompts are sorted by: the run's value minus the other's, so that the best comes first where there is a best.
function rank(item, metric, run, against) {
  const [x, y] = [valuesOf(metric)[run][item] ?? null, valuesOf(metric)[against][item] ?? null];
  if (x === null || y === null) return null;
  return way(metric) === "higher" ? y - x : x - y;
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name, index) => new Option(name, index, false, index === chosen)));
}

function chooseSubset(at) {
  subset = at;
  $("subset").value = at;
  const kept = $("metric").selectedOptions[0]?.text;
  const names = ["the prompts' order", ...Object.keys(data.values[data.subsets[at].name] ?? {})];
  options($("metric"), names, Math.max(0, names.indexOf(kept)));
  sort();
}
function chooseMetric(name) {
  const found = [...$("metric").options].find((option) => option.text === name);
  if (found) { $("metric").value = found.value; sort(); }
}

function sort() {
  const metric = +$("metric").value ? $("metric").selectedOptions[0].text : null;
  const [run, against] = [+$("run").value, +$("against").value];
  const all = items(), ranked = all.map((_, index) => (metric ? rank(index, metric, run, against) : 0));
  const last = (one) => (one === null ? Infinity : one);
  order = all.map((_, index) => index).sort((a, b) => last(ranked[a]) - last(ranked[b]) || a - b);
  $("list").replaceChildren(...order.map((index) => {
    const difference = way(metric) === "higher" ? -ranked[index] : ranked[index];
    const told = !metric ? "" : ranked[index] === null ? "–" : (difference > 0 ? "+" : "") + short(difference);
    const button = element("button", {}, element("span", { textContent: label(all[index]) }), element("span", { textContent: told }));
    button.dataset.item = index;
    return element("li", {}, button);
  }));
  const names = ["lower", "higher"].includes(way(metric)) ? ["best", "median", "worst"] : ["lowest", "median", "highest"];
  document.querySelectorAll("[data-jump]").forEach((button, k) => { button.disabled = !metric; button.textContent = names[k]; });
  mark();
}
function mark() {
  for (const button of $("list").querySelectorAll("button")) {
    const here = +button.dataset.item === current;
    button.ariaCurrent = here ? "true" : null;
    if (here) $("list").scrollTop = button.offsetTop - $("list").offsetTop - $("list").clientHeight / 2;
  }
}
function step(by) {
  const at = order.indexOf(current) + by;
  if (order[at] !== undefined) open(order[at]);
}
function jump(share) {
  const metric = $("metric").selectedOptions[0].text, [run, against] = [+$("run").value, +$("against").value];
  const known = order.filter((item) => rank(item, metric, run, against) !== null);
  if (known.length) open(known[Math.round(share * (known.length - 1))]);
}

// ---- players: each has one clock, however many clips

const players = [];

function address(sha, flow) {
  if (!data.inside) return `media/${sha}${flow ? ".flow" : ""}.mp4`;
  const encoded = $(`${flow ? "flow" : "media"}-${sha}`).textContent;
  return URL.createObjectURL(new Blob([bytes(encoded)], { type: "video/mp4" }));
}

function placed(video, seconds) {
  const last = Number.isFinite(video.duration) ? video.duration - 1e-3 : seconds;
  const wanted = Math.min(seconds, last);
  if (Math.abs(video.currentTime - wanted) < 1e-3 && video.readyState >= 2 && !video.seeking) return Promise.resolve();
  return new Promise((done) => {
    const stop = () => { clearTimeout(patience); done(); };
    const patience = setTimeout(done, 1500);
    video.addEventListener("seeked", stop, { once: true });
    const go = () => { video.currentTime = wanted; };
    if (video.readyState >= 1) go(); else video.addEventListener("loadedmetadata", () => { placed(video, seconds).then(stop); }, { once: true });
  });
}

class Player {
  arms = []; addresses = []; length = 0; rate = 1; time = 0; playing = false; before = 0; sounding = -1; turn = 0; told = -1;
  asked = null; seeking = null;

  constructor(root, step) {
    this.root = root;
    players.push(this);
    this.part("play").addEventListener("click", () => this.toggle());
    this.part("scrubber").addEventListener("input", () => this.scrub(+this.part("scrubber").value));
    this.part("before").addEventListener("click", () => step(-1));
    this.part("after").addEventListener("click", () => step(1));
    this.part("flow").addEventListener("change", () => this.arms.forEach((one) => { if (one.over) one.over.hidden = !this.part("flow").checked; }));
    root.addEventListener("change", (event) => { if (event.target.type === "radio") this.hear(+event.target.value); });
  }

  part(name) { return this.root.getElementsByClassName(name)[0]; }

  arm(clip, name, colour, index, note) {
    const radio = element("input", { type: "radio", name: `sound-${this.root.id}`, value: index });
    radio.setAttribute("aria-label", `Sound of ${name}`);
    const heading = element("label", {}, radio, ...(colour ? [element("i")] : []), element("span", { textContent: name, title: name }));
    if (colour) heading.querySelector("i").style.background = colour;
    const stage = element("div", { className: "stage" }), box = element("article", { className: "arm" }, heading, stage);
    const made = { clip, box, stage, videos: [], canvas: null, card: clip && !clip.missing ? data.cards[clip.sha256] : null };
    if (!made.card) {
      const why = clip ? clip.missing ?? "the clip cannot be shown" : "the clip was not sampled";
      stage.append(element("p", { className: "why", textContent: `No clip: ${why}` }));
      radio.disabled = true;
      return made;
    }
    made.video = this.video(clip.sha256, false, "");
    made.video.classList.toggle("pixels", Math.max(made.card.width, made.card.height) <= 160);
    made.video.setAttribute("aria-label", name);
    made.video.style.aspectRatio = `${made.card.width} / ${made.card.height}`;
    made.videos = [made.video];
    stage.append(made.video);
    if (made.card.flow) {
      made.over = this.video(clip.sha256, true, "over");
      made.over.hidden = !this.part("flow").checked;
      made.videos.push(made.over);
      stage.append(made.over);
    }
    radio.disabled = made.card.peaks === null;
    radio.title = radio.disabled ? "this clip has no sound" : "sound of this clip";
    made.canvas = element("canvas");
    made.canvas.setAttribute("aria-hidden", "true");
    made.peaks = made.card.peaks === null ? null : bytes(made.card.peaks);
    const point = (event) => {
      const { left, width } = made.canvas.getBoundingClientRect();
      this.scrub(Math.floor(Math.min(Math.max((event.clientX - left) / width, 0), 0.9999) * this.length * this.rate));
    };
    made.canvas.addEventListener("pointerdown", (event) => { made.canvas.setPointerCapture(event.pointerId); point(event); });
    made.canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    box.append(made.canvas);
    if (colour && note) box.append(element("p", { className: "note", textContent: note, title: `sha256 ${clip.sha256}` }));
    return made;
  }

  video(sha, flow, className) {
    const src = address(sha, flow);
    if (data.inside) this.addresses.push(src);
    return element("video", { src, muted: true, playsInline: true, preload: "auto", className });
  }

  // `about`: a prompt with its seed; `made` makes the arms.
  show(about, made) {
    this.part("name").textContent = about.name;
    this.part("video-caption").textContent = about.video;
    this.part("audio-caption").textContent = about.audio ?? "";
    this.pause();
    this.every().forEach((video) => { video.removeAttribute("src"); video.load(); }); // or it asks for what is revoked
    retire(this.addresses);
    this.arms = made();
    this.turn += 1;
    const cards = this.arms.map((one) => one.card).filter(Boolean);
    this.length = Math.max(0, ...cards.map((card) => card.seconds));
    this.rate = Math.max(1, ...cards.map((card) => card.fps));
    this.time = 0;
    this.part("scrubber").max = Math.max(0, Math.round(this.length * this.rate) - 1);
    this.part("flow-label").hidden = !cards.some((card) => card.flow);
    this.part("arms").replaceChildren(...this.arms.map((one) => one.box));
    this.hear(this.sounding >= 0 && this.arms[this.sounding]?.peaks ? this.sounding : -1, false);
    this.tell();
    this.waves();
    return this.seek(0);
  }

  every() { return this.arms.flatMap((one) => one.videos); }

  hear(index, remember = true) {
    if (remember) this.sounding = index;
    this.arms.forEach((one, k) => { if (one.video) one.video.muted = k !== index; });
    const radio = this.root.querySelector(`input[type=radio][value="${index}"]`);
    if (radio) radio.checked = true;
  }

  // The clip that is heard leads; else the longest. The clock is its time while it plays, and runs on after its end.
  leader() {
    const heard = this.arms.find((one) => one.video && !one.video.muted);
    return heard ?? this.arms.filter((one) => one.video).sort((a, b) => b.card.seconds - a.card.seconds)[0];
  }

  frameAt(seconds) { return Math.min(+this.part("scrubber").max, Math.max(0, Math.floor(seconds * this.rate + 1e-3))); }

  // All clips go to a time together; of the times asked for meanwhile the last counts.
  seek(seconds) {
    this.asked = seconds;
    this.seeking ??= (async () => {
      while (this.asked !== null) {
        const wanted = this.asked;
        this.asked = null;
        await Promise.all(this.every().map((video) => placed(video, wanted)));
      }
      this.seeking = null;
    })();
    return this.seeking;
  }

  scrub(frame) {
    this.pause();
    const at = Math.min(Math.max(frame, 0), +this.part("scrubber").max);
    this.time = (at + 0.5) / this.rate; // the middle of a frame: no rounding shows its neighbour
    this.tell();
    return this.seek(this.time);
  }

  async play() {
    if (!this.length) return;
    players.forEach((one) => { if (one !== this) one.pause(); });
    if (this.frameAt(this.time) >= +this.part("scrubber").max) this.time = 0;
    const mine = this.turn;
    this.playing = true;
    this.part("play").textContent = "❚❚";
    await this.seek(this.time);
    if (!this.playing || mine !== this.turn) return;
    this.before = performance.now();
    this.every().forEach((video) => { video.playbackRate = 1; video.play().catch(() => {}); });
    requestAnimationFrame((now) => this.tick(now, mine));
  }
  pause() {
    this.playing = false;
    this.every().forEach((video) => video.pause());
    this.part("play").textContent = "▶";
  }
  toggle() { if (this.playing) { this.pause(); } else { this.play(); } }

  tick(now, mine) {
    if (!this.playing || mine !== this.turn) return;
    const lead = this.leader().video, running = !lead.ended && !lead.paused && !lead.seeking && lead.readyState > 2;
    this.time = running ? lead.currentTime : this.time + (now - this.before) / 1000;
    this.before = now;
    if (this.time >= this.length - 0.25 / this.rate) {
      this.every().forEach((video) => video.pause());
      this.time = 0;
      this.play();
      return;
    }
    for (const { videos, card } of this.arms) for (const video of videos) {
      if (video === lead || video.ended || video.seeking) continue;
      const off = Math.min(this.time, card.seconds) - video.currentTime;
      if (Math.abs(off) > 0.6 / card.fps) { video.currentTime += off; video.playbackRate = 1; }
      else video.playbackRate = 1 + Math.min(Math.max(off * 2, -0.2), 0.2);
    }
    this.tell();
    requestAnimationFrame((later) => this.tick(later, mine));
  }

  tell() {
    const frame = this.frameAt(this.time), of = +this.part("scrubber").max + 1;
    this.part("scrubber").value = frame;
    this.part("time").textContent = this.length ? `frame ${frame + 1} of ${of} · ${this.time.toFixed(2)} s` : "";
    if (this.told !== this.time) this.waves();
    this.told = this.time;
  }

  // Heights are of the loudest of all arms, and of 2 % of full scale where all are quieter: a hum stays small.
  waves() {
    const loudest = Math.max(36, ...this.arms.map((one) => (one.peaks ? Math.max(...one.peaks) : 0)));
    const colours = Object.fromEntries(["wave", "ink", "onset", "change", "contact", "soft"].map((name) => [name, ink(`--${name}`)]));
    for (const { canvas, peaks, clip, card } of this.arms) if (canvas) {
      const width = canvas.clientWidth * devicePixelRatio, height = canvas.clientHeight * devicePixelRatio;
      if (canvas.width !== Math.round(width)) { canvas.width = width; canvas.height = height; }
      const pen = canvas.getContext("2d"), across = width / this.length, middle = height * 0.56;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.fillStyle = colours.wave;
      if (peaks) {
        const wide = (card.seconds * across) / peaks.length;
        peaks.forEach((peak, k) => {
          const reach = Math.max(0.5, (peak / loudest) ** 2 * height * 0.34);
          pen.fillRect(k * wide, middle - reach, Math.max(1, wide - 0.5), 2 * reach);
        });
      } else {
        pen.fillStyle = colours.soft;
        pen.font = `${11 * devicePixelRatio}px system-ui`;
        pen.fillText("no sound", 8 * devicePixelRatio, middle);
      }
      const line = 2 * devicePixelRatio;
      pen.fillStyle = colours.onset;
      (clip.onsets ?? []).forEach((at) => pen.fillRect(at * across - line / 2, height * 0.14, line, height * 0.84));
      pen.fillStyle = colours.change;
      (clip.changes ?? []).forEach((at) => pen.fillRect(at * across - line, height * 0.7, 2 * line, height * 0.3));
      pen.fillStyle = colours.contact;
      (clip.contacts ?? []).forEach((at) => { pen.beginPath(); pen.arc(at * across, height * 0.09, 1.6 * line, 0, 7); pen.fill(); });
      pen.fillStyle = colours.ink;
      pen.fillRect(this.time * across - devicePixelRatio / 2, 0, devicePixelRatio, height);
    }
  }
}
addEventListener("resize", () => requestAnimationFrame(() => players.forEach((one) => one.waves())));

const bench = new Player($("player"), (by) => step(by));

function open(item) {
  current = item;
  const one = items()[item], found = clipsOf(subset, one);
  const metric = +$("metric").value ? $("metric").selectedOptions[0].text : null;
  bench.show({ name: label(one), ...captions(one) }, () => data.runs.map((run, index) => bench.arm(found[index], run.name, run.colour, index, [
    metric && `${metric} ${short(valuesOf(metric)[index][item])}`,
    found[index]?.sha256 && `sha256 ${found[index].sha256.slice(0, 8)}…`].filter(Boolean).join("\n"))));
  mark();
}
function openIn(name, metric, prompt) {
  const at = data.subsets.findIndex((one) => one.name === name), item = items(at).findIndex((one) => one.prompt.id === prompt);
  if (item < 0) return;
  chooseSubset(at);
  chooseMetric(metric);
  open(item);
  $("clips").scrollIntoView();
  $("clips").focus({ preventScroll: true });
}

// ---- the first screen: one pair of clips, the prompt with the largest difference first

const pair = { at: 0, row: null, items: [], place: 0 };
const first = new Player($("show"), (by) => showPair(pair.place + by));
const words = (metric) => metric.replaceAll("_", " ");

// By how much the run is better than the other on each item; without a better side, by how much more it has.
function gains(row) {
  const at = data.subsets.findIndex((one) => one.name === row.subset), known = data.values[row.subset]?.[row.metric];
  if (at < 0 || !known) return [];
  const [run, against] = [row.run, row.against].map((name) => known[runNames.indexOf(name)]);
  const target = row.kind.startsWith("distance from") ? data.scores.find((one) => one.subset === row.subset && one.metric === row.metric && one.model === row.run)?.reference : null;
  const side = row.direction === "lower" ? -1 : 1;
  return items(at).map((one, item) => {
    const [x, y] = [run[item], against[item]];
    if (x === null || y === null) return null;
    return { at, item, x, y, gain: (target ?? null) === null ? side * (x - y) : Math.abs(y - target) - Math.abs(x - target) };
  }).filter(Boolean);
}

function choosePair(at) {
  pair.at = at;
  document.querySelectorAll(".pair").forEach((one) => { one.hidden = +one.dataset.pair !== at; });
  const { run, against } = data.pairs[at];
  const rows = data.differences.filter((row) => row.run === run && row.against === against && row.effect !== null && gains(row).length)
    .sort((a, b) => b.shown - a.shown || Math.abs(b.effect) - Math.abs(a.effect));
  if (rows.length) chooseRow(rows[0]);
  else showFirst();
}

function chooseRow(row) {
  const found = gains(row), side = Math.sign(row.effect) || 1;
  if (!found.length) { $("found").textContent = `${words(row.metric)} compares sets of clips, so no single clip shows it.`; return; }
  pair.row = row;
  pair.items = found.sort((a, b) => side * (b.gain - a.gain));
  document.querySelectorAll(".choice").forEach((one) => one.setAttribute("aria-pressed",
    one.dataset.metric === row.metric && +one.closest(".pair").dataset.pair === pair.at && (data.subsets.length === 1 || one.dataset.subset === row.subset)));
  showPair(0);
}

function showPair(place) {
  if (place < 0 || place >= pair.items.length) return;
  pair.place = place;
  const { row } = pair, { at, item, x, y } = pair.items[place], one = items(at)[item], found = clipsOf(at, one);
  const where = data.subsets.length > 1 ? ` on ${row.subset}` : "", unit = data.metrics[row.metric].unit;
  const certain = row.better ? `${row.better} is shown to be better` : row.shown ? "shown to differ" : "not shown to be more than chance";
  $("found").textContent = `${words(row.metric)}${where}: ${certain}`;
  $("rank").textContent = `Prompt ${place + 1} of ${pair.items.length}, the largest difference first`;
  first.part("before").disabled = place === 0;
  first.part("after").disabled = place === pair.items.length - 1;
  const numbers = new Map([[row.run, x], [row.against, y]]);
  first.show({ name: one.prompt.id, ...captions(one) }, () => [row.against, row.run].map((name, index) => {
    const run = runNames.indexOf(name);
    return first.arm(found[run], name, data.runs[run].colour, index, `${words(row.metric)} ${short(numbers.get(name))} ${unit}`);
  }));
  if (begun && !matchMedia("(prefers-reduced-motion: reduce)").matches) first.play();
}

// Where no pair is compared: the first prompt.
function showFirst() {
  if (!data.subsets.length || !items(0).length) return;
  const one = items(0)[0], found = clipsOf(0, one);
  first.part("before").disabled = first.part("after").disabled = true;
  first.show({ name: one.prompt.id, ...captions(one) }, () => data.runs.slice(0, 2).map((run, index) => first.arm(found[index], run.name, run.colour, index, "")));
}

function activate(event) {
  const choice = event.target.closest(".choice");
  if (!choice || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
  event.preventDefault();
  const { run, against } = data.pairs[choice.closest(".pair").dataset.pair];
  const row = data.differences.find((one) => one.run === run && one.against === against && one.metric === choice.dataset.metric && one.subset === choice.dataset.subset);
  chooseRow(row);
  if (!$("answer").contains(choice)) $("answer").scrollIntoView();
}
document.addEventListener("click", activate);
document.addEventListener("keydown", activate);
$("pair")?.addEventListener("change", () => choosePair(+$("pair").value));

// ---- strips: the best, the median and the worst clip of each run, by any metric

function strip(box) {
  const at = +box.dataset.subset, name = data.subsets[at].name, known = data.values[name] ?? {};
  const select = box.querySelector(".strip-metric"), thumbs = box.querySelector(".thumbs"), made = [];
  const metrics = Object.keys(known);
  options(select, metrics.map(words), Math.max(0, metrics.indexOf(pair.row?.metric)));
  if (!metrics.length) { box.hidden = true; return; }
  function fill() {
    retire(made);
    const metric = metrics[select.value], target = data.scores.find((one) => one.subset === name && one.metric === metric && one.reference !== null)?.reference;
    const matched = way(metric) === "band" && target !== undefined, sided = matched || ["lower", "higher"].includes(way(metric));
    const cost = (value) => (matched ? Math.abs(value - target) : way(metric) === "higher" ? -value : value);
    const heads = sided ? ["best", "median", "worst"] : ["least", "median", "most"];
    thumbs.replaceChildren(...data.runs.flatMap((run, index) => {
      const ranked = items(at).map((one, item) => ({ one, value: known[metric][index][item], clip: clipsOf(at, one)[index] }))
        .filter(({ value, clip }) => value !== null && clip && data.cards[clip.sha256]).sort((a, b) => cost(a.value) - cost(b.value));
      if (!ranked.length) return [];
      const title = element("p", { className: "run" }, element("i"), run.name);
      title.firstChild.style.background = run.colour;
      return [title, ...heads.map((head, k) => {
        const { one, value, clip } = ranked[Math.round(k / 2 * (ranked.length - 1))], card = data.cards[clip.sha256];
        const video = element("video", { src: address(clip.sha256, false), muted: true, loop: true, playsInline: true, preload: "metadata" });
        video.style.aspectRatio = `${card.width} / ${card.height}`;
        if (data.inside) made.push(video.src);
        const button = element("button", { type: "button", className: "thumb" }, video, element("span", { textContent: `${head}: ${short(value)}` }));
        button.setAttribute("aria-label", `${run.name}, ${head} ${words(metric)} ${short(value)}, ${one.prompt.id}: watch`);
        button.addEventListener("click", () => openIn(name, metric, one.prompt.id));
        for (const begins of ["pointerenter", "focus"]) button.addEventListener(begins, () => { video.play().catch(() => {}); });
        for (const ends of ["pointerleave", "blur"]) button.addEventListener(ends, () => video.pause());
        return button;
      })];
    }));
  }
  select.addEventListener("change", fill);
  fill();
}
const strips = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { strips.unobserve(entry.target); strip(entry.target); }
}, { rootMargin: "300px" });

// ---- blind votes

let ballot = null;

// A small seeded generator (mulberry32), so that the order of a ballot can be made again from its seed.
function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function newBallot(seed) {
  const random = chance(seed), pairs = [];
  data.subsets.forEach((_, at) => items(at).forEach((one, item) => {
    const found = clipsOf(at, one);
    for (let a = 0; a < found.length; a++) for (let b = a + 1; b < found.length; b++) {
      const shown = [found[a], found[b]].every((clip) => clip && !clip.missing && data.cards[clip.sha256]);
      if (!shown || found[a].sha256 === found[b].sha256) continue;
      const [left, right] = random() < 0.5 ? [a, b] : [b, a];
      pairs.push({ at, item, left, right });
    }
  }));
  for (let k = pairs.length - 1; k > 0; k--) {
    const other = Math.floor(random() * (k + 1));
    [pairs[k], pairs[other]] = [pairs[other], pairs[k]];
  }
  return { seed, pairs, votes: [], saved: true };
}

function startVoting() {
  ballot ??= newBallot(crypto.getRandomValues(new Uint32Array(1))[0]);
  if (!ballot.pairs.length) { ballot = null; return; }
  blind(true);
  nextPair();
  $("voting").scrollIntoView({ block: "nearest" });
}
function stopVoting() {
  blind(false);
  if (current >= 0) open(current);
}
function blind(on) {
  $("voting").hidden = !on;
  $("sorting").hidden = on;
  $("list").hidden = on;
  bench.part("before").hidden = bench.part("after").hidden = on;
  document.querySelector(".bench").classList.toggle("blind", on);
}
const voting = () => !$("voting").hidden;

const unmarked = { onsets: null, changes: null, contacts: null }; // they may tell a model by what it gets wrong
function nextPair() {
  const pair = ballot.pairs[ballot.votes.length];
  $("progress").textContent = pair ? `pair ${ballot.votes.length + 1} of ${ballot.pairs.length}` : `all ${ballot.pairs.length} pairs voted`;
  document.querySelectorAll("[data-vote]").forEach((button) => { button.disabled = !pair; });
  $("undo").disabled = !ballot.votes.length;
  $("export").disabled = !ballot.votes.length;
  if (!pair) { bench.show({ name: "", video: "" }, () => []); return; }
  const one = items(pair.at)[pair.item], found = clipsOf(pair.at, one);
  bench.show({ name: "Which is better?", ...captions(one) }, () => ["left", "right"].map((side, index) => bench.arm({ ...found[pair[side]], ...unmarked }, side, null, index)));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) bench.play();
}
function vote(choice) {
  const pair = ballot.pairs[ballot.votes.length];
  if (!pair) return;
  const { prompt, seed } = items(pair.at)[pair.item], subset = data.subsets[pair.at].name;
  ballot.votes.push({ subset, prompt: prompt.id, seed, left: runNames[pair.left], right: runNames[pair.right], vote: choice });
  ballot.saved = false;
  nextPair();
}
function undo() { if (ballot.votes.pop()) nextPair(); }

function exportVotes() {
  const digests = Object.fromEntries(data.subsets.map((one) => [one.name, one.digest]));
  const plain = { avbench_votes: 1, seed: ballot.seed, runs: runNames, subsets: digests, votes: ballot.votes };
  download(new Blob([JSON.stringify(plain, null, 1)], { type: "application/json" }), `votes-${ballot.seed}.json`);
  ballot.saved = true;
}
function reveal() {
  const wins = new Map(runNames.map((name) => [name, { won: 0, tied: 0, lost: 0 }]));
  for (const { left, right, vote: choice } of ballot.votes) for (const [name, side] of [[left, "left"], [right, "right"]]) {
    wins.get(name)[choice === "tie" ? "tied" : choice === side ? "won" : "lost"] += 1;
  }
  $("tally").textContent = [...wins].map(([name, { won, tied, lost }]) => `${name}: ${won} won, ${tied} tied, ${lost} lost`).join(" · ")
    + ". Strengths with intervals: avbench votes FILE on the exported votes.";
  $("tally").hidden = false;
}
addEventListener("beforeunload", (event) => { if (ballot && !ballot.saved) event.preventDefault(); });

// ---- hands

$("list").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) open(+button.dataset.item); });
$("sorting").addEventListener("submit", (event) => event.preventDefault());
$("subset").addEventListener("change", () => { chooseSubset(+$("subset").value); open(order[0]); });
for (const id of ["metric", "run", "against"]) $(id).addEventListener("change", () => { sort(); if (current >= 0) open(current); });
document.querySelectorAll("[data-jump]").forEach((button) => button.addEventListener("click", () => jump(+button.dataset.jump)));
document.querySelectorAll("[data-vote]").forEach((button) => button.addEventListener("click", () => vote(button.dataset.vote)));
for (const [id, action] of Object.entries({ vote: startVoting, leave: stopVoting, undo, export: exportVotes, reveal })) {
  $(id).addEventListener("click", action);
}

const keys = {
  " ": () => bench.toggle(),
  f: () => { bench.part("flow").checked = !bench.part("flow").checked; bench.part("flow").dispatchEvent(new Event("change")); },
  j: () => voting() || step(1), k: () => voting() || step(-1), v: () => (voting() ? stopVoting() : startVoting()),
  ArrowLeft: () => (voting() ? vote("left") : bench.scrub(bench.frameAt(bench.time) - 1)),
  ArrowRight: () => (voting() ? vote("right") : bench.scrub(bench.frameAt(bench.time) + 1)),
  ArrowDown: () => (voting() ? vote("tie") : false), u: () => voting() && undo(), e: () => voting() && exportVotes(),
  Escape: () => voting() && stopVoting(),
};
const reachable = new IntersectionObserver(([entry]) => { inView[entry.isIntersecting ? "add" : "delete"]("reach"); });
reachable.observe($("clips"));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("origin").open || !inView.has("reach")) return;
  const target = event.target;
  if (target.matches("select") || (event.key === " " && target.matches("button, summary, a, input:not([type=range])"))) return;
  if (!$("clips").contains(target) && target !== document.body) return;
  const digit = /^[0-9]$/.test(event.key) ? +event.key : null;
  if (digit !== null && digit <= bench.arms.length && (digit === 0 || bench.arms[digit - 1].peaks)) bench.hear(digit - 1);
  else if (!keys[event.key] || keys[event.key]() === false) return;
  event.preventDefault();
});

options($("subset"), data.subsets.map((one) => one.name), 0);
options($("run"), runNames, Math.min(1, runNames.length - 1));
options($("against"), runNames, 0);
chooseSubset(0);
// The first prompt is opened when the clips come into view.
const arriving = new IntersectionObserver(([entry]) => {
  if (entry.isIntersecting) { arriving.disconnect(); if (current < 0 && order.length) open(order[0]); }
}, { rootMargin: "600px" });
arriving.observe($("clips"));
let begun = false;
if (data.pairs.length) choosePair(0); else showFirst();
begun = true;
// The pair plays while it is seen.
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) new IntersectionObserver(([entry]) => {
  if (entry.isIntersecting) first.play(); else first.pause();
}, { threshold: 0.5 }).observe(first.part("arms"));
document.querySelectorAll(".strip").forEach((one) => strips.observe(one));
document.documentElement.dataset.ready = "true";
performance.mark("ready");
