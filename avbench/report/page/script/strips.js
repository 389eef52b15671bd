// ---- strips: the best, the median and the worst clip of each run, by any metric

function strip(box) {
  const at = +box.dataset.subset, name = data.subsets[at].name, known = data.values[name] ?? {};
  const select = box.querySelector(".strip-metric"), thumbs = box.querySelector(".thumbs"), made = [];
  const metrics = Object.keys(known);
  options(select, metrics.map(words), Math.max(0, metrics.indexOf(pair.row?.metric)));
  if (!metrics.length) { box.hidden = true; return; }
  function fill() {
    retire(made);
    const metric = metrics[select.value];
    thumbs.replaceChildren(...data.runs.flatMap((run, index) => {
      const target = (item) => (way(metric) === "band" ? aim(name, metric, run.name, item) : null);
      const matched = items(at).some((_, item) => target(item) !== null), sided = matched || ["lower", "higher"].includes(way(metric));
      const cost = ({ value, item }) => (matched ? Math.abs(value - target(item)) : way(metric) === "higher" ? -value : value);
      const heads = sided ? ["best", "median", "worst"] : ["least", "median", "most"];
      const ranked = items(at).map((one, item) => ({ one, item, value: known[metric][index][item], clip: clipsOf(at, one)[index] }))
        .filter(({ value, clip }) => value !== null && clip && data.cards[clip.sha256]).sort((a, b) => cost(a) - cost(b));
      if (!ranked.length) return [];
      const title = element("p", { className: "run" }, element("i"), run.name);
      title.firstChild.style.background = run.colour;
      return [title, ...heads.map((head, k) => {
        const { one, item, value, clip } = ranked[Math.round(k / 2 * (ranked.length - 1))], card = data.cards[clip.sha256];
        const video = element("video", { src: address(clip.sha256), muted: true, loop: true, playsInline: true, preload: "metadata" });
        video.style.aspectRatio = `${card.width} / ${card.height}`;
        if (data.inside) made.push(video.src);
        const told = `${head}: ${short(value)}${target(item) === null ? "" : `, real ${short(target(item))}`}`;
        const button = element("button", { type: "button", className: "thumb" }, video, element("span", { textContent: told }));
        button.setAttribute("aria-label", `${told}, ${words(metric)} of ${run.name}, ${label(one, at)}: watch`);
        button.addEventListener("click", () => openIn(name, metric, one.prompt.id, one.seed));
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
