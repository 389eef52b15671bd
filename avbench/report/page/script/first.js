// ---- the first screen: one pair of clips, the prompt with the largest difference first

const pair = { at: 0, row: null, items: [], place: 0 };
const first = new Player($("show"), (by) => showPair(pair.place + by));

// By how much the run is better than the other on each item; without a better side, by how much more it has.
function gains(row) {
  const at = data.subsets.findIndex((one) => one.name === row.subset), known = data.values[row.subset]?.[row.metric];
  if (at < 0 || !known) return [];
  const [run, against] = [row.run, row.against].map((name) => known[runNames.indexOf(name)]);
  const matched = row.kind.startsWith("distance from");
  const side = row.direction === "lower" ? -1 : 1;
  return items(at).map((one, item) => {
    const [x, y] = [run[item], against[item]];
    if (x === null || y === null) return null;
    const target = matched ? aim(row.subset, row.metric, row.run, item) : null;
    return { at, item, x, y, gain: target === null ? side * (x - y) : Math.abs(y - target) - Math.abs(x - target) };
  }).filter(Boolean);
}

function choosePair(at) {
  pair.at = at;
  document.querySelectorAll(".pair").forEach((one) => { one.hidden = +one.dataset.pair !== at; });
  const { run, against } = data.pairs[at];
  const rows = data.differences.filter((row) => row.run === run && row.against === against && row.effect !== null && gains(row).length)
    .sort((a, b) => b.shown - a.shown || Math.abs(b.effect) - Math.abs(a.effect));
  if (rows.length) chooseRow(rows[0]);
  else showFirst([against, run]);
}

function chooseRow(row) {
  const found = gains(row), side = Math.sign(row.effect) || 1;
  if (!found.length) {
    $("found").textContent = row.kind === "distance" ? `${words(row.metric)} compares sets of clips, so no single clip shows it.`
      : `No prompt has a value of ${words(row.metric)} in both runs, so no pair of clips shows it.`;
    $("rank").textContent = "";
    return;
  }
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

// Where no pair is compared, or nothing of the chosen one: the first prompt.
function showFirst(names = runNames.slice(0, 2)) {
  Object.assign(pair, { row: null, items: [] });
  for (const id of ["found", "rank"]) $(id).textContent = "";
  document.querySelectorAll(".choice").forEach((one) => one.setAttribute("aria-pressed", "false"));
  if (!data.subsets.length || !items(0).length) return;
  const one = items(0)[0], found = clipsOf(0, one);
  first.part("before").disabled = first.part("after").disabled = true;
  first.show({ name: one.prompt.id, ...captions(one) }, () => names.map((name, index) => {
    const run = runNames.indexOf(name);
    return first.arm(found[run], name, data.runs[run].colour, index, "");
  }));
}

function activate(event) {
  const choice = event.target.closest(".choice");
  if (!choice || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
  event.preventDefault();
  const { run, against } = data.pairs[choice.closest(".pair").dataset.pair];
  const row = data.differences.find((one) => one.run === run && one.against === against && one.metric === choice.dataset.metric && one.subset === choice.dataset.subset);
  chooseRow(row);
  if (!$("answer").contains(choice)) goTo($("answer"));
}
document.addEventListener("click", activate);
document.addEventListener("keydown", activate);
$("pair")?.addEventListener("change", () => choosePair(+$("pair").value));
