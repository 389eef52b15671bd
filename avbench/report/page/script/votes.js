// ---- blind votes: two clips of one prompt, and nothing that tells which model made which

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
  return { seed, pairs, votes: [], saved: true, ended: false };
}
const pairNow = () => (ballot.ended ? undefined : ballot.pairs[ballot.votes.length]);

// What both clips of a pair are brought to; null or false where they agree already. Each vote keeps it.
function common(cards) {
  const [a, b] = cards, shape = (card) => card.width / card.height, levels = cards.map((card) => card.loudness);
  const muted = levels.includes(null), reshaped = Math.abs(Math.log(shape(a) / shape(b))) > 0.01;
  return {
    muted: muted && levels.some((level) => level !== null),
    aspect: reshaped ? +Math.sqrt(shape(a) * shape(b)).toFixed(4) : null,
    seconds: Math.abs(a.seconds - b.seconds) > 0.5 / Math.max(a.fps, b.fps) ? Math.min(a.seconds, b.seconds) : null,
    quieter_db: muted || Math.abs(levels[0] - levels[1]) < 0.5 ? null : +Math.abs(levels[0] - levels[1]).toFixed(1),
  };
}
function changes({ muted, aspect, seconds, quieter_db }) {
  return [muted && "One clip has no sound, so both are played without.", aspect && "Both pictures are cropped to one shape.",
    seconds && "Both end when the shorter one does.", quieter_db && "Both are played equally loud."].filter(Boolean).join(" ");
}

// An arm without anything but its picture and sound: no waveform, no marks, no flow.
function blindArm(clip, side, index, cards, made) {
  const arm = bench.arm({ sha256: clip.sha256 }, side, null, index, ""), silent = cards.some((card) => card.loudness === null);
  arm.canvas.remove();
  arm.canvas = null;
  arm.stage.classList.add("framed");
  arm.box.style.setProperty("--shape", made.aspect ?? arm.card.width / arm.card.height);
  arm.video.style.aspectRatio = "";
  arm.video.classList.toggle("pixels", cards.every((card) => Math.max(card.width, card.height) <= 160));
  arm.radio.hidden = arm.radio.disabled = silent;
  if (silent) arm.peaks = null;
  else {
    arm.radio.parentElement.append(arm.radio, element("small", { textContent: "sound" }));
    arm.video.volume = 10 ** (Math.min(0, Math.min(...cards.map((card) => card.loudness)) - arm.card.loudness) / 20);
  }
  return arm;
}

function startVoting() {
  ballot ??= newBallot(crypto.getRandomValues(new Uint32Array(1))[0]);
  blind(true);
  nextPair();
  $("voting").scrollIntoView({ block: "nearest" });
  $("voting").focus({ preventScroll: true });
}
function stopVoting() {
  blind(false);
  if (order.length) open(Math.max(current, 0));
  $("vote").focus({ preventScroll: true });
}
function blind(on) {
  bench.part("silence").hidden = false;
  $("voting").hidden = !on;
  $("sorting").hidden = on;
  $("list").hidden = on;
  bench.part("before").hidden = bench.part("after").hidden = on;
  document.querySelector(".bench").classList.toggle("blind", on);
  document.body.classList.toggle("ballot", on);
}
const voting = () => !$("voting").hidden;

async function nextPair() {
  const pair = pairNow(), { votes, pairs, ended } = ballot;
  const none = "No pair of clips to vote on: no prompt has two different clips that can be shown.";
  $("progress").textContent = !pairs.length ? none : pair ? `pair ${votes.length + 1} of ${pairs.length}` : ended ? `ended after ${votes.length} of ${pairs.length} pairs` : `all ${pairs.length} pairs voted: export them`;
  document.querySelectorAll("[data-vote]").forEach((button) => { button.disabled = !pair; });
  $("undo").disabled = !votes.length || ended;
  $("export").disabled = !votes.length;
  $("changed").textContent = "";
  if (!pair) { bench.show({ name: "", video: "" }, () => []); return; }
  const one = items(pair.at)[pair.item], found = clipsOf(pair.at, one), sides = [found[pair.left], found[pair.right]];
  const cards = sides.map((clip) => data.cards[clip.sha256]);
  pair.made = common(cards);
  const silent = cards.some((card) => card.loudness === null);
  $("changed").textContent = [changes(pair.made), !silent && "To hear a clip, click its “sound”."].filter(Boolean).join(" ");
  // Neither is seen before the other: which one loads first could tell them apart.
  bench.root.classList.add("loading");
  bench.part("silence").hidden = silent;
  await bench.show({ name: "Which is better?", ...captions(one), ...(silent ? { audio: null } : {}) },
    () => sides.map((clip, index) => blindArm(clip, ["left", "right"][index], index, cards, pair.made)), pair.made.seconds ?? cards[0].seconds);
  if (pairNow() !== pair) return;
  bench.root.classList.remove("loading");
  if (voting() && !matchMedia("(prefers-reduced-motion: reduce)").matches) bench.play();
}
function vote(choice) {
  const pair = pairNow();
  if (!pair || bench.root.classList.contains("loading")) return;
  const { prompt, seed } = items(pair.at)[pair.item], subset = data.subsets[pair.at].name;
  ballot.votes.push({ subset, prompt: prompt.id, seed, left: runNames[pair.left], right: runNames[pair.right], vote: choice, conformed: pair.made });
  ballot.saved = false;
  nextPair();
}
function undo() { if (!ballot.ended && ballot.votes.pop()) nextPair(); }

function exportVotes() {
  if (!ballot.votes.length) return;
  const digests = Object.fromEntries(data.subsets.map((one) => [one.name, one.digest]));
  const plain = { avbench_votes: 2, seed: ballot.seed, runs: runNames, subsets: digests, votes: ballot.votes };
  download(new Blob([JSON.stringify(plain, null, 1)], { type: "application/json" }), `votes-${ballot.seed}.json`);
  $("changed").textContent = `${ballot.votes.length} votes are in votes-${ballot.seed}.json, among your downloads.`;
  ballot.saved = true;
}
// Who has seen the names is no longer blind, so the ballot ends.
function reveal() {
  const wins = new Map(runNames.map((name) => [name, { won: 0, tied: 0, lost: 0 }]));
  for (const { left, right, vote: choice } of ballot.votes) for (const [name, side] of [[left, "left"], [right, "right"]]) {
    wins.get(name)[choice === "tie" ? "tied" : choice === side ? "won" : "lost"] += 1;
  }
  $("tally").textContent = [...wins].map(([name, { won, tied, lost }]) => `${apart(name)}: ${won} won, ${tied} tied, ${lost} lost`).join(" · ")
    + ". The ballot has ended. Strengths with intervals: avbench votes FILE on the exported votes.";
  $("tally").hidden = false;
  ballot.ended = true;
  nextPair();
}
addEventListener("beforeunload", (event) => { if (ballot && !ballot.saved) event.preventDefault(); });

// report.html#vote is for raters: the ballot alone, without a model's name.
function forRaters() {
  document.body.classList.add("rating");
  document.title = "Which is better?";
  startVoting();
}
