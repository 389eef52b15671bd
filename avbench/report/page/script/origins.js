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
    ["n", `${score.n} clips` + (score.unmeasured ? `; ${score.unmeasured} without a number` : "") + (score.why_unmeasured ? `: ${score.why_unmeasured}` : "")
      + (score.of_others ? `; other models alone were asked for ${score.of_others} more` : "")],
    ["null", score.null === null ? null : `${score.null} ± ${score.null_sd} (sd); p ${score.p}; excess ${score.excess}; exchanges ${score.null_within_prompts ? "within" : "across"} prompts`],
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
    ["not compared", row.missing ?? row.too_few],
    ["clips", row.pairs === null ? null : row.paired ? `${row.pairs} pairs of ${row.prompts} prompts` : `${row.pairs}, not paired`],
    ["dropped", row.dropped ? `${row.dropped} of which only one side has a value` : null],
    ["detectable", row.detectable === null || row.too_few ? null : row.out_of_reach ?? `${row.detectable} with 80 % power`],
    ["needed", row.needed === null || (row.too_few && row.kind === "distance") ? null : `${row.needed} prompts${row.kind === "distance" ? ", with as many times more real clips," : ""} for the observed difference`], ["remark", row.mark],
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
