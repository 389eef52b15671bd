// ---- watch: all clips of a prompt with a seed, sorted by a metric

let subset = 0, order = [], current = -1;
const items = (at = subset) => data.subsets[at].prompts.flatMap((prompt) => data.subsets[at].seeds.map((seed) => ({ prompt, seed })));
const label = ({ prompt, seed }, at = subset) => (data.subsets[at].seeds.length > 1 ? `${prompt.id} · ${seed}` : prompt.id);
const clipsOf = (at, { prompt, seed }) => data.clips[[data.subsets[at].name, prompt.id, seed].join("/")] ?? [];
const captions = ({ prompt }) => ({ video: prompt.video, audio: prompt.audio });
const valuesOf = (metric) => data.values[data.subsets[subset].name]?.[metric] ?? runNames.map(() => []);

const way = (metric) => data.metrics[metric]?.direction;
// What prompts are sorted by: the run's value minus the other's, or the run's own, where it is beside no other; the best
// comes first where there is a best.
function rank(item, metric, run, against) {
  const [x, y] = [valuesOf(metric)[run][item] ?? null, run === against ? 0 : valuesOf(metric)[against][item] ?? null];
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
    const told = !metric ? "" : ranked[index] === null ? "–" : (difference > 0 && run !== against ? "+" : "") + short(difference);
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
function openIn(name, metric, prompt, seed = null) {
  const at = data.subsets.findIndex((one) => one.name === name);
  const item = items(at).findIndex((one) => one.prompt.id === prompt && (seed === null || one.seed === seed));
  if (item < 0) return;
  chooseSubset(at);
  chooseMetric(metric);
  open(item);
  goTo($("clips"));
  $("clips").focus({ preventScroll: true });
}
