// Faults of a page as it is laid out: window.pageFaults() lists them. Injected before the page's own
// scripts, so that texts drawn on canvases are seen as well.
"use strict";

(() => {
  const SLACK = 1.5; // px that rounding may take
  const DATES = [/\b\d{4}-\d{2}-\d{2}\b/, /\b\d{1,2}\/\d{1,2}\/\d{2,4}\b/, /\b\d{1,2}\.\d{1,2}\.\d{4}\b/, /\b\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b/];
  const MARKS = "text, path, rect, circle, line, polyline, polygon";

  // Canvas -> the texts that were drawn on it since it was cleared, each with its corners in pixels.
  const drawn = new WeakMap();
  const context = CanvasRenderingContext2D.prototype;
  const { fillText, clearRect } = context;
  context.clearRect = function (...given) {
    drawn.delete(this.canvas);
    return clearRect.apply(this, given);
  };
  context.fillText = function (text, x, y, ...more) {
    const { actualBoundingBoxLeft: left, actualBoundingBoxRight: right, actualBoundingBoxAscent: up, actualBoundingBoxDescent: down } = this.measureText(text);
    const at = this.getTransform();
    const corners = [[x - left, y - up], [x + right, y + down]].map(([px, py]) => at.transformPoint({ x: px, y: py }));
    drawn.set(this.canvas, [...(drawn.get(this.canvas) || []), { text, corners }]);
    return fillText.call(this, text, x, y, ...more);
  };

  const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const name = (element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") || ""}">`;
  const brief = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 60));
  const beyond = (box, edge) =>
    box.left < edge.left - SLACK || box.right > edge.right + SLACK || box.top < edge.top - SLACK || box.bottom > edge.bottom + SLACK;
  // Texts for screen readers alone are one pixel wide.
  const unseen = (element) => element.closest(".visually-hidden, .unseen, .skip, [hidden]") !== null;

  function* texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const parent = node.parentElement;
      if (!node.data.trim() || parent.closest("script, style, noscript, option, template, datalist, svg") || !shown(parent) || unseen(parent)) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      yield { node, parent, box: range.getBoundingClientRect() };
    }
  }

  // A text is cut where a box around it hides what does not fit. What ends in "…" must be whole in a title.
  function* cutTexts() {
    for (const { node, parent, box } of texts()) {
      if (box.width === 0) continue;
      let scrolls = false, hides = null;
      for (let around = parent; around; around = around.parentElement) {
        const style = getComputedStyle(around);
        if (/auto|scroll/.test(style.overflowX + style.overflowY)) scrolls = true;
        if (scrolls || hides || !/hidden|clip/.test(style.overflowX + style.overflowY)) continue;
        if (beyond(box, around.getBoundingClientRect())) hides = around;
      }
      const ends = hides && getComputedStyle(hides);
      const told = ends && (ends.textOverflow === "ellipsis" || ends.webkitLineClamp !== "none") && hides.closest("[title]");
      if (hides && !told) yield `text is cut: ${brief(node.data)} by ${name(hides)}`;
      const seen = hides ? hides.getBoundingClientRect() : box; // of a cut text no more is seen than its box
      if (!scrolls && getComputedStyle(parent).position !== "fixed" && (seen.left < -SLACK || seen.right > innerWidth + SLACK)) {
        if (!parent.closest(".sidebar, .sidebar-drawer, .toc-drawer")) yield `text lies outside the window: ${brief(node.data)}`;
      }
    }
  }

  function* wideTables() {
    for (const table of document.querySelectorAll("table")) {
      if (!shown(table) || unseen(table) || table.closest("details:not([open])")) continue;
      let around = table.parentElement;
      while (around !== document.body && getComputedStyle(around).overflowX === "visible") around = around.parentElement;
      const over = table.getBoundingClientRect().width - around.clientWidth;
      if (over > SLACK) yield `table is ${Math.round(over)} px wider than its window: ${brief(table.innerText)}`;
    }
  }

  function* chartFaults() {
    for (const canvas of document.querySelectorAll("canvas")) {
      if (!shown(canvas)) continue;
      const edge = { left: 0, top: 0, right: canvas.width, bottom: canvas.height };
      for (const { text, corners } of drawn.get(canvas) || []) {
        const [xs, ys] = [corners.map((one) => one.x), corners.map((one) => one.y)];
        const box = { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
        if (beyond(box, edge)) yield `a chart's label is clipped: ${brief(String(text))}`;
      }
      let around = canvas.parentElement;
      while (around !== document.body && getComputedStyle(around).overflowX === "visible") around = around.parentElement;
      const over = canvas.getBoundingClientRect().width - around.clientWidth;
      if (over > SLACK) yield `a chart is ${Math.round(over)} px wider than its window`;
    }
    for (const svg of document.querySelectorAll("main svg[viewBox]")) {
      if (!shown(svg) || svg.getBoundingClientRect().width < 40) continue; // icons
      const edge = svg.getBoundingClientRect();
      for (const mark of svg.querySelectorAll(MARKS)) {
        if (mark.closest("defs, clipPath, symbol") || !shown(mark)) continue;
        const box = mark.getBoundingClientRect();
        if ((box.width || box.height) && beyond(box, edge)) yield `a chart's ${mark.tagName} lies outside its box: ${brief(mark.textContent)} ${name(svg)}`;
      }
    }
  }

  function* otherDates() {
    for (const { node, parent } of texts()) {
      if (parent.closest("code, pre, .log, .id, .mono, textarea")) continue;
      const found = DATES.map((style) => node.data.match(style)).find(Boolean);
      if (found) yield `another style of date: ${brief(found[0])} in ${brief(node.data)}`;
    }
  }

  // What the keyboard reaches shows that it was reached, and has a name that a screen reader can say.
  function* focusFaults() {
    const before = document.activeElement;
    for (const element of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]")) {
      if (element.tabIndex > 0) yield `has a place of its own in the tab order: ${name(element)}`;
      if (element.tabIndex < 0 || element.disabled || !shown(element) || element.closest("[inert]")) continue;
      const style = () => { const s = getComputedStyle(element); return [s.outlineStyle, s.outlineWidth, s.boxShadow, s.borderColor, s.backgroundColor].join(); };
      const plain = style();
      element.focus({ focusVisible: true, preventScroll: true });
      if (document.activeElement === element && style() === plain && !(element === before)) yield `focus cannot be seen: ${name(element)} ${brief(element.innerText || "")}`;
      element.blur();
    }
    before?.focus?.({ preventScroll: true });
  }

  window.pageFaults = ({ looks }) => {
    const wide = document.documentElement.scrollWidth - innerWidth;
    const found = wide > 0 ? [`is ${wide} px wider than the window`] : [];
    found.push(...cutTexts(), ...wideTables(), ...chartFaults());
    if (looks) found.push(...otherDates(), ...focusFaults());
    return [...new Set(found)];
  };
  window.pageText = () => document.title + "\n" + document.body.innerText;
})();
