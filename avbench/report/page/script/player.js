// ---- players: each has one clock, however many clips

const players = [];
const UNLIKE_SECONDS = 0.2; // lengths of picture and sound that differ by more are marked

// Sound counts as a whole, also what lasts longer than the picture.
const lasts = (card) => Math.max(card.seconds, card.sound_seconds ?? 0);

// A clip of another form than its subset's is played as it is; its numbers, marks and curves are of a conformed copy,
// if it is long enough for one.
function measuredAs({ width, height, fps, seconds, sample_rate, channels }, card) {
  if (seconds - card.seconds > 1e-3 || seconds - (card.sound_seconds ?? seconds) > 1 / fps) return "";
  const sound = card.peaks !== null && sample_rate ? `, ${sample_rate} Hz, ${channels} channel${channels > 1 ? "s" : ""}` : "";
  return `measured as ${width}×${height}, ${short(fps)} frames/s, the first ${short(seconds)} s${sound}`
    + (data.pictures.length ? "; pictures over it are of the clip as it is" : "");
}

// Of a clip, or of a picture that lies over it.
function address(sha, picture = "") {
  if (!data.inside) return `media/${sha}${picture && `.${picture}`}.mp4`;
  const encoded = $(`${picture || "media"}-${sha}`).textContent;
  return URL.createObjectURL(new Blob([bytes(encoded)], { type: "video/mp4" }));
}

function unload(video) { video.removeAttribute("src"); video.load(); } // or it asks for what is revoked

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

// An empty canvas with a dot for each pixel of the screen.
function fitted(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== width) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  return pen;
}

class Player {
  arms = []; addresses = []; length = 0; frames = 1; rate = 1; time = 0; playing = false; before = 0; sounding = -1; turn = 0; told = -1;
  asked = null; seeking = null; over = "";

  constructor(root, step) {
    this.root = root;
    players.push(this);
    this.part("play").addEventListener("click", () => this.toggle());
    this.part("scrubber").addEventListener("input", () => this.scrub(+this.part("scrubber").value));
    this.part("before").addEventListener("click", () => step(-1));
    this.part("after").addEventListener("click", () => step(1));
    this.part("picture").append(...[{ name: "", label: "nothing" }, ...data.pictures].map(({ name, label }) => new Option(label, name)));
    this.part("picture").addEventListener("change", () => this.lay(this.part("picture").value));
    root.addEventListener("change", (event) => { if (event.target.type === "radio") this.hear(+event.target.value); });
  }

  part(name) { return this.root.getElementsByClassName(name)[0]; }

  arm(clip, name, colour, index, note) {
    const radio = element("input", { type: "radio", name: `sound-${this.root.id}`, value: index });
    radio.setAttribute("aria-label", `Sound of ${name}`);
    const heading = element("label", {}, radio, ...(colour ? [element("i")] : []), element("span", { textContent: name, title: name }));
    if (colour) heading.querySelector("i").style.background = colour;
    const stage = element("div", { className: "stage" }), box = element("article", { className: "arm" }, heading, stage);
    const made = { clip, box, stage, radio, colour, name, number: index + 1, videos: [], canvas: null, card: clip && !clip.missing ? data.cards[clip.sha256] : null };
    if (!made.card) {
      const why = clip ? clip.missing ?? "it cannot be shown" : "the run was not asked for it";
      stage.append(element("p", { className: "why", textContent: `No clip: ${why}` }));
      radio.disabled = true;
      return made;
    }
    made.video = this.video(clip.sha256, "", "");
    made.video.classList.toggle("pixels", Math.max(made.card.width, made.card.height) <= 160);
    made.video.setAttribute("aria-label", name);
    made.video.style.aspectRatio = `${made.card.width} / ${made.card.height}`;
    made.videos = [made.video];
    stage.append(made.video);
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
    const form = colour && clip.form && measuredAs(clip.form, made.card);
    if (form) box.append(element("p", { className: "note form", textContent: form }));
    for (const [metric, near] of Object.entries(clip.near ?? {})) box.append(this.neighbour(made, metric, near));
    return made;
  }

  // The reference clip that is nearest in a distance's features; it plays along where it can be shown.
  neighbour(arm, metric, near) {
    const told = typeof near === "string" ? `${words(metric)}: ${near}` : `nearest real clip for ${words(metric)}: ${near.prompt}, seed ${near.seed}, ${short(near.distance)} away`;
    const box = element("figure", { className: "near" });
    if (near.sha256) {
      const video = this.video(near.sha256, "", "");
      video.setAttribute("aria-label", told);
      arm.videos.push(video);
      box.append(video);
    }
    box.append(element("figcaption", { textContent: told + (near.sha256 || typeof near === "string" ? "" : ". The reference keeps no clip of it.") }));
    return box;
  }

  // Lays a picture over every clip that has it, and says of the others why not.
  async lay(picture) {
    this.over = this.part("picture").value = picture;
    const told = data.pictures.find((one) => one.name === picture);
    this.part("over-words").textContent = told ? told.words : "";
    for (const arm of this.arms) {
      if (arm.laid instanceof HTMLVideoElement) unload(arm.laid);
      arm.videos = arm.videos.filter((one) => one !== arm.laid);
      arm.laid?.remove();
      arm.laid = null;
      if (!told || !arm.card) continue;
      const why = arm.card.pictures[picture];
      if (why === null) arm.videos.push(arm.laid = this.video(arm.clip.sha256, picture, "over"));
      else arm.laid = element("p", { className: "over why", textContent: `No ${told.label}: ${why ?? "it was not computed for this clip"}` });
      arm.stage.append(arm.laid);
    }
    const playing = this.playing;
    await this.seek(this.time);
    if (playing && this.playing) this.every().forEach((video) => { video.play().catch(() => {}); });
  }

  video(sha, picture, className) {
    const src = address(sha, picture);
    if (data.inside) this.addresses.push(src);
    return element("video", { src, muted: true, playsInline: true, preload: "auto", className });
  }

  // `about`: a prompt with its seed; `made` makes the arms; no clip is shown beyond `most` seconds.
  show(about, made, most = Infinity) {
    this.part("name").textContent = about.name;
    this.part("video-caption").textContent = about.video;
    this.part("audio-caption").textContent = about.audio ?? "";
    this.pause();
    this.every().forEach((video) => unload(video));
    retire(this.addresses);
    this.arms = made();
    this.turn += 1;
    const cards = this.arms.map((one) => one.card).filter(Boolean);
    this.length = Math.min(most, Math.max(0, ...cards.map(lasts)));
    this.rate = Math.max(1, ...cards.map((card) => card.fps));
    this.frames = Math.round(Math.min(most, Math.max(0, ...cards.map((card) => card.seconds))) * this.rate);
    this.time = 0;
    this.part("scrubber").max = Math.max(0, Math.round(this.length * this.rate) - 1);
    this.part("over-label").hidden = !data.pictures.length || !this.arms.some((one) => one.colour);
    this.part("over-words").hidden = this.part("over-label").hidden;
    this.part("arms").replaceChildren(...this.arms.map((one) => one.box));
    this.part("curves").replaceChildren(...data.curves.filter((metric) => this.arms.some((one) => one.clip?.curves?.[metric])).map((metric) => this.curve(metric)));
    if (this.over && !this.part("over-label").hidden) this.lay(this.over);
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
    return heard ?? this.arms.filter((one) => one.video).sort((a, b) => lasts(b.card) - lasts(a.card))[0];
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
      const off = Math.min(this.time, Number.isFinite(video.duration) ? video.duration : lasts(card)) - video.currentTime;
      if (Math.abs(off) > 0.6 / card.fps) { video.currentTime += off; video.playbackRate = 1; }
      else video.playbackRate = 1 + Math.min(Math.max(off * 2, -0.2), 0.2);
    }
    this.tell();
    requestAnimationFrame((later) => this.tick(later, mine));
  }

  tell() {
    const frame = this.frameAt(this.time), place = frame < this.frames ? `frame ${frame + 1} of ${this.frames}` : "after the last frame";
    this.part("scrubber").value = frame;
    this.part("time").textContent = this.length ? `${place} · ${this.time.toFixed(2)} s` : "";
    if (this.told !== this.time) this.waves();
    this.told = this.time;
  }

  // A metric's number for each frame, of all arms on one axis, under the scrubber.
  curve(metric) {
    const canvas = element("canvas", { className: "curve" }), known = this.arms.filter((one) => one.clip?.curves?.[metric]);
    canvas.dataset.metric = metric;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${words(metric)} over time: ${known.map((one) => `${one.name} ${short(Math.min(...one.clip.curves[metric]))} to ${short(Math.max(...one.clip.curves[metric]))}`).join(", ")}`);
    const told = element("figcaption", {}, `${words(metric)}, frame by frame:`);
    for (const { number, name, colour } of known) {
      const dot = element("i");
      dot.style.background = colour;
      told.append(" ", dot, ` ${number} `, element("bdi", { textContent: name }));
    }
    return element("figure", { className: "over-time" }, told, canvas);
  }

  drawCurves() {
    for (const canvas of this.root.querySelectorAll("canvas.curve")) {
      const pen = fitted(canvas), { width, height } = canvas, unit = devicePixelRatio;
      const known = this.arms.filter((one) => one.clip?.curves?.[canvas.dataset.metric]).map((one) => [one, one.clip.curves[canvas.dataset.metric]]);
      const most = Math.max(...known.flatMap(([, numbers]) => numbers)) || 1, edge = 5 * unit;
      const place = (value) => height - edge - (value / most) * (height - 2 * edge);
      pen.lineWidth = 2 * unit;
      pen.font = `bold ${11 * unit}px system-ui`;
      known.forEach(([arm, numbers], nth) => {
        pen.strokeStyle = arm.colour;
        pen.beginPath();
        // a step lies between two frames of what was measured; a number of a frame in its middle
        const { frames, fps } = arm.clip.form ?? arm.card, shift = numbers.length < frames ? 1 : 0.5;
        const x = (k) => ((k + shift) / fps / this.length) * width;
        numbers.forEach((number, k) => pen.lineTo(x(k), place(number)));
        pen.stroke();
        // its number, each line's at another place
        const k = Math.floor(((nth + 1) / (known.length + 1)) * numbers.length);
        pen.fillStyle = ink("--ink");
        pen.fillText(arm.number, x(k), Math.max(10 * unit, place(numbers[k]) - 3 * unit));
      });
      pen.fillStyle = ink("--soft");
      pen.font = `${11 * unit}px system-ui`;
      pen.fillText(short(most), 4 * unit, 12 * unit);
      pen.fillText("0", 4 * unit, height - 3 * unit);
      pen.fillStyle = ink("--ink");
      pen.fillRect((this.time / this.length) * width - unit / 2, 0, unit, height);
    }
  }

  // Heights are of the loudest of all arms, and of 2 % of full scale where all are quieter: a hum stays small.
  waves() {
    const loudest = Math.max(36, ...this.arms.map((one) => (one.peaks ? Math.max(...one.peaks) : 0)));
    const colours = Object.fromEntries(["wave", "ink", "onset", "change", "contact", "soft"].map((name) => [name, ink(`--${name}`)]));
    this.drawCurves();
    for (const { canvas, peaks, clip, card } of this.arms) if (canvas) {
      const pen = fitted(canvas), { width, height } = canvas, across = width / this.length, middle = height * 0.56;
      pen.fillStyle = colours.wave;
      if (peaks) {
        const wide = (card.sound_seconds * across) / peaks.length;
        peaks.forEach((peak, k) => {
          const reach = Math.max(0.5, (peak / loudest) ** 2 * height * 0.34);
          pen.fillRect(k * wide, middle - reach, Math.max(1, wide - 0.5), 2 * reach);
        });
      } else {
        pen.fillStyle = colours.soft;
        pen.font = `${11 * devicePixelRatio}px system-ui`;
        pen.fillText("no sound", 8 * devicePixelRatio, middle);
      }
      if (peaks && Math.abs(card.sound_seconds - card.seconds) > UNLIKE_SECONDS) {
        const end = Math.min(card.sound_seconds, card.seconds) * across;
        pen.fillStyle = colours.soft;
        pen.font = `${11 * devicePixelRatio}px system-ui`;
        pen.fillRect(end, 0, devicePixelRatio, height);
        const told = `${card.sound_seconds > card.seconds ? "picture" : "sound"} ends`, gap = 4 * devicePixelRatio;
        const wide = pen.measureText(told).width; // beside the line, where there is room for it
        pen.fillText(told, end + gap + wide < width ? end + gap : end - gap - wide, 12 * devicePixelRatio);
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
