// Looks at every frame of the page and writes what is wrong with it, as JSON, into <pre>.
const LEAST = 4.5;  // WCAG 2.2, 1.4.3: contrast of text

const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).slice(0, 3).map((x) => x / 255).map(
    (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};
const behind = (element, view) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = view.getComputedStyle(at).backgroundColor, alpha = channels(colour)[3] ?? 1;
    if (alpha === 1) return colour;
    if (alpha > 0) throw Error(`half transparent: ${at.outerHTML.slice(0, 80)}`);
  }
  return view.matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
};

function texts(page, view) {
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && !element.closest("style, script, title")
        && element.checkVisibility()) found.push(element);
  }
  return found.map((element) => {
    const style = view.getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    return [element.textContent.trim().slice(0, 40), contrast(ink, behind(element, view))];
  });
}

function audit(frame) {
  const page = frame.contentDocument, view = frame.contentWindow, faults = [];
  const all = (selector) => [...page.querySelectorAll(selector)];
  const scheme = view.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (!frame.title.endsWith(scheme)) faults.push(`shown in ${scheme}`);
  const wide = () => {
    if (page.documentElement.scrollWidth > frame.clientWidth)
      faults.push(`wider than its frame: ${page.documentElement.scrollWidth}`);
  };
  wide();
  const details = all("details");
  details.forEach((x) => { if (!x.open) x.querySelector("summary")?.click(); });
  if (details.some((x) => !x.open)) faults.push("details that do not open");
  wide();
  const read = texts(page, view);
  for (const [words, ratio] of read)
    if (ratio < LEAST) faults.push(`contrast ${ratio.toFixed(2)}: ${words}`);
  if (!page.documentElement.lang || !page.title) faults.push("no language or title");
  for (const x of all("img")) if (!x.alt.trim()) faults.push("img without alt");
  for (const x of all("svg"))
    if (x.getAttribute("role") !== "img" || !x.getAttribute("aria-label")) faults.push("svg without label");
  const ranks = all("h1, h2, h3, h4, h5, h6").map((x) => Number(x.tagName[1]));
  if (ranks.filter((x) => x === 1).length !== 1) faults.push("not one h1");
  ranks.forEach((x, i) => { if (x > (ranks[i - 1] ?? 0) + 1) faults.push(`heading ${ranks[i - 1]} then ${x}`); });
  for (const x of all("th")) if (!x.scope || !x.textContent.trim()) faults.push("th without scope or text");
  for (const x of all("table")) if (!x.closest("[role=region][aria-label][tabindex]"))
    faults.push("table that cannot be scrolled by key");
  const ids = all("[id]").map((x) => x.id);
  if (new Set(ids).size < ids.length) faults.push("one id twice");
  for (const x of all("a[href^='#']"))
    if (!ids.includes(x.getAttribute("href").slice(1))) faults.push(`link to nothing: ${x.textContent}`);
  return {faults, texts: read.length, details: details.length, tables: all("table").length};
}

addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) found[frame.title] = audit(frame);
  document.querySelector("pre").textContent = JSON.stringify(found);
});
