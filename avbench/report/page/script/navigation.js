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
