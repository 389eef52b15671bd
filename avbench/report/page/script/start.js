// ---- hands and keys; then the page begins

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
  f: () => voting() || nextPicture(),
  j: () => voting() || step(1), k: () => voting() || step(-1), v: () => (voting() ? stopVoting() : startVoting()),
  ArrowLeft: () => (voting() ? vote("left") : bench.scrub(bench.frameAt(bench.time) - 1)),
  ArrowRight: () => (voting() ? vote("right") : bench.scrub(bench.frameAt(bench.time) + 1)),
  ArrowDown: () => (voting() ? vote("tie") : false), u: () => voting() && undo(), e: () => voting() && exportVotes(),
  Escape: () => voting() && stopVoting(),
};
function nextPicture() {
  const names = ["", ...data.pictures.map((one) => one.name)];
  bench.lay(names[(names.indexOf(bench.over) + 1) % names.length]);
}
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
  if (entry.isIntersecting) { arriving.disconnect(); if (current < 0 && order.length && !voting()) open(order[0]); }
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
if (location.hash === "#vote") forRaters();
document.documentElement.dataset.ready = "true";
performance.mark("ready");
