// The page's script: figures, clips in lockstep, blind votes, origins. What comes from the data is set as text only.
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

// ---- figures: plotly's code is unpacked when the first one is near

let library = null;
function plotly() {
  library ??= (async () => {
    const packed = new Blob([bytes($("plotly").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(element("script", { textContent: await new Response(packed).text() }));
    return window.Plotly;
  })();
  return library;
}

function dressed(figure) {
  const grid = { gridcolor: ink("--line"), zerolinecolor: ink("--soft"), linecolor: ink("--line") };
  const { xaxis, yaxis, ...layout } = figure.layout;
  return {
    ...layout,
    xaxis: { ...grid, ...xaxis, title: { font: { size: 12, color: ink("--soft") }, ...xaxis.title } },
    yaxis: { ...grid, zeroline: false, ...yaxis },
    font: { family: "system-ui, sans-serif", size: 12, color: ink("--ink") },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", hovermode: "closest", dragmode: false,
    margin: { l: 10, r: 18, t: 8, b: 46 }, height: figure.height, autosize: true,
    hoverlabel: { bgcolor: ink("--raised"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
  };
}

const drawn = new Set();
async function draw(plot) {
  const { subset, kind, index } = plot.dataset;
  const figure = data.figures[subset][kind][index];
  const library = await plotly();
  const traces = figure.data.map((trace) => ({ ...trace }));
  await library.react(plot, traces, dressed(figure), { responsive: true, displayModeBar: false });
  if (drawn.has(plot)) return;
  drawn.add(plot);
  performance.mark("figure");
  plot.on("plotly_click", (event) => {
    const prompt = event.points[0].customdata, at = data.subsets.findIndex((one) => one.name === subset);
    const item = typeof prompt === "string" ? items(at).findIndex((one) => one.prompt.id === prompt) : -1;
    if (item < 0) return;
    chooseSubset(at);
    if (kind === "paired") chooseMetric(figure.title);
    open(item);
    $("clips").scrollIntoView();
  });
}

// One figure at a time, when the page has nothing else to do: it stays quick under the hand.
let drawing = Promise.resolve();
const idle = () => new Promise((done) => (window.requestIdleCallback ?? setTimeout)(done));
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    near.unobserve(entry.target);
    drawing = drawing.then(idle).then(() => draw(entry.target));
  }
}, { rootMargin: "300px" });
for (const plot of document.querySelectorAll(".plot")) near.observe(plot);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawn.forEach(draw); waves(); });

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
  $("origin-title").textContent = `${row.metric}: ${row.run} less ${row.against}, ${row.subset}`;
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
const valuesOf = (metric) => data.values[data.subsets[subset].name]?.[metric] ?? runNames.map(() => []);

const way = (metric) => data.metrics[metric]?.direction;
// What prompts are sorted by: the run's value less the other's, so that the best comes first where there is a best.
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

// ---- the player: one clock, however many clips

let arms = [], addresses = [], length = 0, rate = 1, time = 0, playing = false, before = 0, sounding = -1, turn = 0;

function address(sha, flow) {
  if (!data.inside) return `media/${sha}${flow ? ".flow" : ""}.mp4`;
  const made = URL.createObjectURL(new Blob([bytes($(`${flow ? "flow" : "media"}-${sha}`).textContent)], { type: "video/mp4" }));
  addresses.push(made);
  return made;
}

function arm(clip, name, colour, index, note) {
  const radio = element("input", { type: "radio", name: "sound", value: index });
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
  made.video = element("video", { src: address(clip.sha256, false), muted: true, playsInline: true, preload: "auto" });
  made.video.classList.toggle("pixels", Math.max(made.card.width, made.card.height) <= 160);
  made.video.setAttribute("aria-label", name);
  made.video.style.aspectRatio = `${made.card.width} / ${made.card.height}`;
  made.videos = [made.video];
  stage.append(made.video);
  if (made.card.flow) {
    made.over = element("video", { src: address(clip.sha256, true), muted: true, playsInline: true, preload: "auto", className: "over" });
    made.over.hidden = !$("flow").checked;
    made.videos.push(made.over);
    stage.append(made.over);
  }
  radio.disabled = made.card.peaks === null;
  radio.title = radio.disabled ? "this clip has no sound" : "sound of this clip";
  made.canvas = element("canvas");
  made.canvas.setAttribute("aria-hidden", "true");
  made.peaks = made.card.peaks === null ? null : bytes(made.card.peaks);
  made.canvas.addEventListener("pointerdown", (event) => { made.canvas.setPointerCapture(event.pointerId); point(event); });
  made.canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
  box.append(made.canvas);
  if (colour) box.append(element("p", { className: "note", textContent: note, title: `sha256 ${clip.sha256}` }));
  function point(event) {
    const { left, width } = made.canvas.getBoundingClientRect();
    scrub(Math.floor(Math.min(Math.max((event.clientX - left) / width, 0), 0.9999) * length * rate));
  }
  return made;
}

function show(made) {
  pause();
  every().forEach((video) => { video.removeAttribute("src"); video.load(); }); // or it asks for what is revoked
  addresses.splice(0).forEach((one) => URL.revokeObjectURL(one));
  arms = made();
  turn += 1;
  const cards = arms.map((one) => one.card).filter(Boolean);
  length = Math.max(0, ...cards.map((card) => card.seconds));
  rate = Math.max(1, ...cards.map((card) => card.fps));
  time = 0;
  $("scrubber").max = Math.max(0, Math.round(length * rate) - 1);
  $("flow-label").hidden = !cards.some((card) => card.flow);
  $("arms").replaceChildren(...arms.map((one) => one.box));
  hear(sounding >= 0 && arms[sounding]?.peaks ? sounding : -1, false);
  tell();
  waves();
  seek(0);
}

function open(item) {
  current = item;
  const one = items()[item], found = clipsOf(subset, one);
  const metric = +$("metric").value ? $("metric").selectedOptions[0].text : null;
  $("name").textContent = label(one);
  $("video-caption").textContent = one.prompt.video;
  $("audio-caption").textContent = one.prompt.audio ?? "";
  show(() => data.runs.map((run, index) => arm(found[index], run.name, run.colour, index, [
    metric && `${metric} ${short(valuesOf(metric)[index][item])}`,
    found[index]?.sha256 && `sha256 ${found[index].sha256.slice(0, 8)}…`].filter(Boolean).join("\n"))));
  mark();
}

const every = () => arms.flatMap((one) => one.videos);

function hear(index, remember = true) {
  if (remember) sounding = index;
  arms.forEach((one, k) => { if (one.video) one.video.muted = k !== index; });
  const radio = document.querySelector(`input[name=sound][value="${index}"]`);
  if (radio) radio.checked = true;
}

// The clip that is heard leads; else the longest. The clock is its time while it plays, and runs on after its end.
function leader() {
  const heard = arms.find((one) => one.video && !one.video.muted);
  return heard ?? arms.filter((one) => one.video).sort((a, b) => b.card.seconds - a.card.seconds)[0];
}

const frameAt = (seconds) => Math.min(+$("scrubber").max, Math.max(0, Math.floor(seconds * rate + 1e-3)));

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

// All clips go to a time together; of the times asked for meanwhile the last counts.
let asked = null, seeking = null;
function seek(seconds) {
  asked = seconds;
  seeking ??= (async () => {
    while (asked !== null) {
      const wanted = asked;
      asked = null;
      await Promise.all(every().map((video) => placed(video, wanted)));
    }
    seeking = null;
  })();
  return seeking;
}

function scrub(frame) {
  pause();
  const at = Math.min(Math.max(frame, 0), +$("scrubber").max);
  time = (at + 0.5) / rate; // the middle of a frame: no rounding shows its neighbour
  tell();
  return seek(time);
}

async function play() {
  if (!length) return;
  if (frameAt(time) >= +$("scrubber").max) time = 0;
  const mine = turn;
  playing = true;
  $("play").textContent = "❚❚";
  await seek(time);
  if (!playing || mine !== turn) return;
  before = performance.now();
  every().forEach((video) => { video.playbackRate = 1; video.play().catch(() => {}); });
  requestAnimationFrame((now) => tick(now, mine));
}
function pause() {
  playing = false;
  every().forEach((video) => video.pause());
  $("play").textContent = "▶";
}
function toggle() { if (playing) { pause(); } else { play(); } }

function tick(now, mine) {
  if (!playing || mine !== turn) return;
  const lead = leader().video, running = !lead.ended && !lead.paused && !lead.seeking && lead.readyState > 2;
  time = running ? lead.currentTime : time + (now - before) / 1000;
  before = now;
  if (time >= length - 0.25 / rate) {
    every().forEach((video) => video.pause());
    time = 0;
    play();
    return;
  }
  for (const { videos, card } of arms) for (const video of videos) {
    if (video === lead || video.ended || video.seeking) continue;
    const off = Math.min(time, card.seconds) - video.currentTime;
    if (Math.abs(off) > 0.6 / card.fps) { video.currentTime += off; video.playbackRate = 1; }
    else video.playbackRate = 1 + Math.min(Math.max(off * 2, -0.2), 0.2);
  }
  tell();
  requestAnimationFrame((later) => tick(later, mine));
}

let told = -1;
function tell() {
  const frame = frameAt(time);
  $("scrubber").value = frame;
  $("time").textContent = length ? `frame ${frame + 1} of ${+$("scrubber").max + 1} · ${time.toFixed(2)} s` : "";
  if (told !== time) waves();
  told = time;
}

// Heights are of the loudest of all arms, and of 2 % of full scale where all are quieter: a hum stays small.
function waves() {
  const loudest = Math.max(36, ...arms.map((one) => (one.peaks ? Math.max(...one.peaks) : 0)));
  const colours = Object.fromEntries(["wave", "ink", "onset", "change", "contact", "soft"].map((name) => [name, ink(`--${name}`)]));
  for (const { canvas, peaks, clip, card } of arms) if (canvas) {
    const width = canvas.clientWidth * devicePixelRatio, height = canvas.clientHeight * devicePixelRatio;
    if (canvas.width !== Math.round(width)) { canvas.width = width; canvas.height = height; }
    const pen = canvas.getContext("2d"), across = width / length, middle = height * 0.56;
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
    pen.fillRect(time * across - devicePixelRatio / 2, 0, devicePixelRatio, height);
  }
}
addEventListener("resize", () => requestAnimationFrame(waves));

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
  $("before").hidden = $("after").hidden = on;
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
  if (!pair) { show(() => []); return; }
  const one = items(pair.at)[pair.item], found = clipsOf(pair.at, one);
  $("name").textContent = "Which is better?";
  $("video-caption").textContent = one.prompt.video;
  $("audio-caption").textContent = one.prompt.audio ?? "";
  show(() => ["left", "right"].map((side, index) => arm({ ...found[pair[side]], ...unmarked }, side, null, index)));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
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
  const saved = URL.createObjectURL(new Blob([JSON.stringify(plain, null, 1)], { type: "application/json" }));
  element("a", { href: saved, download: `votes-${ballot.seed}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(saved), 10000);
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

$("play").addEventListener("click", toggle);
$("scrubber").addEventListener("input", () => scrub(+$("scrubber").value));
$("player").addEventListener("change", (event) => { if (event.target.name === "sound") hear(+event.target.value); });
$("flow").addEventListener("change", () => arms.forEach((one) => { if (one.over) one.over.hidden = !$("flow").checked; }));
$("list").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) open(+button.dataset.item); });
$("before").addEventListener("click", () => step(-1));
$("after").addEventListener("click", () => step(1));
$("sorting").addEventListener("submit", (event) => event.preventDefault());
$("subset").addEventListener("change", () => { chooseSubset(+$("subset").value); open(order[0]); });
for (const id of ["metric", "run", "against"]) $(id).addEventListener("change", () => { sort(); if (current >= 0) open(current); });
document.querySelectorAll("[data-jump]").forEach((button) => button.addEventListener("click", () => jump(+button.dataset.jump)));
document.querySelectorAll("[data-vote]").forEach((button) => button.addEventListener("click", () => vote(button.dataset.vote)));
for (const [id, action] of Object.entries({ vote: startVoting, leave: stopVoting, undo, export: exportVotes, reveal })) {
  $(id).addEventListener("click", action);
}

const keys = {
  " ": toggle, f: () => { $("flow").checked = !$("flow").checked; $("flow").dispatchEvent(new Event("change")); },
  j: () => voting() || step(1), k: () => voting() || step(-1), v: () => (voting() ? stopVoting() : startVoting()),
  ArrowLeft: () => (voting() ? vote("left") : scrub(frameAt(time) - 1)),
  ArrowRight: () => (voting() ? vote("right") : scrub(frameAt(time) + 1)),
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
  if (digit !== null && digit <= arms.length && (digit === 0 || arms[digit - 1].peaks)) hear(digit - 1);
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
document.documentElement.dataset.ready = "true";
performance.mark("ready");
