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

// Sections grow when they come near the screen. The one that was asked for keeps its place meanwhile, until the reader
// scrolls or three seconds have passed.
let heldInPlace;
function goTo(section) {
  heldInPlace?.disconnect();
  const now = heldInPlace = new ResizeObserver(() => section.scrollIntoView());
  now.observe(document.body);
  setTimeout(() => now.disconnect(), 3000);
}
for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) addEventListener(kind, () => heldInPlace?.disconnect(), { passive: true });
function follow(hash) {
  const section = $(hash?.slice(1));
  if (section) goTo(section);
}
addEventListener("click", (event) => follow(event.target.closest("a[href^='#']")?.hash));
follow(location.hash);
