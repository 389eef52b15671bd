// The page's script begins: the data, and what every part uses. What comes from the data is set as text only.
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
// A run's name that is read from right to left, without drawing what stands beside it along.
const apart = (name) => (/[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/.test(name) ? `\u2068${name}\u2069` : name);
const words = (metric) => metric.replaceAll("_", " ");
const short = (value) => (value === null || value === undefined ? "–" : Math.abs(value) < 1e4 ? String(+value.toPrecision(4)) : Math.abs(value) < 1e7 ? value.toFixed(0) : value.toPrecision(4));

function bytes(encoded) {
  const text = atob(encoded), made = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) made[k] = text.charCodeAt(k);
  return made;
}

// The value that a clip should have: of the real clips of its prompt, or of all; null where it is not known.
function aim(subset, metric, run, item) {
  const known = data.targets[subset]?.[metric];
  return known ? known[item] : data.scores.find((one) => one.subset === subset && one.metric === metric && one.model === run)?.reference ?? null;
}
