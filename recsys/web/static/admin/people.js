// The search box of What-if (a combobox), steps that can be dragged, and rows that begin at their end.
"use strict";

(() => {
  const box = () => document.getElementById("find");
  const list = () => document.getElementById("options");
  let at = -1;

  function options() { return [...list().querySelectorAll("[data-add]")]; }
  function open(shown) {
    list().hidden = !shown;
    box().setAttribute("aria-expanded", String(shown));
    if (!shown) mark(-1);
  }
  function mark(place) {
    at = place;
    options().forEach((option, number) => option.setAttribute("aria-selected", String(number === at)));
    const chosen = options()[at];
    if (chosen) {
      box().setAttribute("aria-activedescendant", chosen.id);
      chosen.scrollIntoView({ block: "nearest" });
    } else box().removeAttribute("aria-activedescendant");
  }
  function send(name, value) {
    const form = document.getElementById("sequence");
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name, value });
    if (name === "add") { open(false); box().value = ""; }
    form.append(field);
    form.requestSubmit();
    field.remove();
  }

  document.addEventListener("keydown", (event) => {
    if (event.target !== box()) return;
    const count = options().length;
    if (event.key === "Enter") {
      event.preventDefault();
      const chosen = options()[Math.max(at, 0)];
      if (chosen && !list().hidden) send("add", chosen.dataset.add);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      event.preventDefault();
      open(true);
      mark((at + (event.key === "ArrowDown" ? 1 : -1) + count + (at < 0 && event.key === "ArrowUp" ? 1 : 0)) % count);
    } else if (event.key === "Escape" && !list().hidden) {
      event.preventDefault();
      open(false);
    }
  });
  document.addEventListener("mousedown", (event) => {
    const option = event.target.closest("#options [data-add]");
    if (option) { event.preventDefault(); send("add", option.dataset.add); }
    else if (box() && event.target !== box()) open(false);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id === "options") { open(Boolean(box().value.trim())); mark(-1); }
    rowsToTheirEnd();
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    // Nothing to look for: close the list and ask nobody.
    if (event.detail.elt === box() && !box().value.trim()) { event.preventDefault(); open(false); }
  });

  let dragged = null;
  document.addEventListener("dragstart", (event) => {
    const step = event.target.closest?.("[data-at]");
    if (!step) return;
    dragged = step;
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", step.dataset.at);
    step.classList.add("dragged");
  });
  document.addEventListener("dragover", (event) => {
    if (dragged && event.target.closest?.("[data-steps]")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const step = event.target.closest?.("[data-at]");
    if (!dragged || !step) return;
    event.preventDefault();
    if (step !== dragged) send("do", `move:${dragged.dataset.at}:${step.dataset.at}`);
  });
  document.addEventListener("dragend", () => { dragged?.classList.remove("dragged"); dragged = null; });

  function rowsToTheirEnd() {
    for (const row of document.querySelectorAll("[data-scroll-end]")) row.scrollLeft = row.scrollWidth;
  }
  rowsToTheirEnd();
})();
