// Sets every formula of a page with KaTeX; \( \) and \[ \] are what arithmatex leaves around them.
document$.subscribe(({ body }) => {
  for (const formula of body.querySelectorAll(".arithmatex")) {
    const text = formula.textContent.trim();
    katex.render(text.slice(2, -2), formula, { displayMode: text.startsWith("\\[") });
  }
});
