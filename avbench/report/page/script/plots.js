// ---- plots: a dot opens its clips; saved, they keep the colours that they have here

document.addEventListener("click", (event) => {
  const dot = event.target.closest("[data-prompt]"), plot = event.target.closest(".plot");
  if (dot && plot) {
    const { run, against } = dot.closest("[data-run]").dataset; // a difference is listed as the plot has it
    if (against !== undefined) for (const [id, name] of Object.entries({ run, against })) $(id).value = runNames.indexOf(name);
    const { prompt, seed } = dot.dataset;
    openIn(plot.dataset.subset, plot.dataset.metric, prompt, seed === undefined ? null : +seed);
  }
  const save = event.target.closest("[data-save]");
  if (save) savePlot([...save.closest("figure").querySelectorAll("svg")].find((one) => one.clientWidth), save.dataset.save);
});
document.addEventListener("pointerover", (event) => {
  const dot = event.target.closest("[data-prompt]");
  if (dot && !dot.firstChild) {
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    const { prompt, seed } = dot.dataset, { run, against } = dot.closest("[data-run]").dataset;
    const several = seed !== undefined && data.subsets.some((one) => one.seeds.length > 1);
    title.textContent = [several ? `${prompt} · ${seed}` : prompt, [run, against].filter(Boolean).map(apart).join(" − ")].join(", ");
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

async function savePlot(drawing, form) {
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
