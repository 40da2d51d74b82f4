// What the pages of the dashboard share: theme, drawer, dialogs, times, messages, live parts.
"use strict";

(() => {
  const root = document.documentElement;
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
  const utcDay = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

  // Times: sent in UTC, shown in the viewer's zone.
  function ago(seconds) {
    const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const size = Math.abs(seconds);
    if (size < 5) return "just now";
    const [length, name] = units.find(([length]) => size >= length);
    const text = `${Math.floor(size / length)} ${name}`;
    return seconds >= 0 ? `${text} ago` : `in ${text}`;
  }
  function inZone(zone, at) {
    try {
      return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: zone }).format(at);
    } catch {
      return moment.format(at); // a zone that the browser does not know
    }
  }
  function showTimes(within) {
    for (const element of within.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      element.title = exact.format(at);
      if ("ago" in element.dataset) element.textContent = ago((Date.now() - at) / 1000);
      else if ("clock" in element.dataset) element.textContent = at.toLocaleTimeString();
      else if ("zone" in element.dataset) element.textContent = inZone(element.dataset.zone, at);
      else if ("utc" in element.dataset) element.textContent = utcDay.format(at);
      else element.textContent = ("day" in element.dataset ? day : moment).format(at);
    }
  }
  setInterval(() => {
    for (const element of document.querySelectorAll("time[data-ago]")) {
      element.textContent = ago((Date.now() - new Date(element.dateTime)) / 1000);
    }
  }, 10000);

  // Messages
  function toast(kind, text) {
    const line = document.createElement("p");
    line.className = `flash ${kind}`;
    const words = document.createElement("span");
    words.textContent = text;
    line.append(words);
    document.getElementById("toasts").append(line);
    setTimeout(() => line.remove(), 8000);
  }

  function drawer(open) {
    document.body.classList.toggle("drawer", open);
    const button = document.querySelector("[data-drawer]");
    if (button) button.setAttribute("aria-expanded", String(open));
    if (open) document.querySelector("#nav a").focus();
    else if (button && document.activeElement && document.activeElement.closest("#nav")) button.focus();
  }

  // Search: Ctrl-K or "/" opens it, arrows go through what is found, Enter opens the first.
  const search = document.getElementById("search");
  function openSearch() {
    drawer(false);
    if (search.open) return;
    search.showModal();
    const field = search.querySelector("input");
    field.select();
    htmx.trigger(field, "opened");
  }
  document.addEventListener("keydown", (event) => {
    if (!search) return;
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    const slash = event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey;
    const shortcut = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
    if (slash || shortcut) {
      event.preventDefault();
      openSearch();
    } else if (search.open && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      const places = [search.querySelector("input"), ...search.querySelectorAll("#found a")];
      const step = event.key === "ArrowDown" ? 1 : -1;
      places[(places.indexOf(document.activeElement) + step + places.length) % places.length].focus();
    }
  });
  search?.querySelector("form").addEventListener("submit", (event) => {
    const first = search.querySelector("#found a");
    if (!first) return;
    event.preventDefault();
    first.click();
  });

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, a, [data-drawer-close]");
    if (!target) return;
    if ("search" in target.dataset) {
      event.preventDefault();
      openSearch();
      return;
    }
    if ("drawer" in target.dataset) drawer(!document.body.classList.contains("drawer"));
    else if ("drawerClose" in target.dataset) drawer(false);
    else if ("dialog" in target.dataset) document.getElementById(target.dataset.dialog).showModal();
    else if ("close" in target.dataset) target.closest("dialog").close();
    else if ("dismiss" in target.dataset) target.closest(".flash").remove();
    else if ("themeSwitch" in target.dataset) {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("recsys-theme", root.dataset.theme);
      document.dispatchEvent(new CustomEvent("theme"));
    } else if ("copy" in target.dataset) {
      navigator.clipboard.writeText(document.getElementById(target.dataset.copy).textContent.trim()).then(
        () => toast("good", "Copied."), () => toast("bad", "The browser blocked copying."));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      drawer(false);
      for (const popover of document.querySelectorAll("details.popover[open]")) popover.open = false;
    }
  });
  // A click beside a popover closes it; one on a dialog's backdrop closes that.
  document.addEventListener("mousedown", (event) => {
    for (const popover of document.querySelectorAll("details.popover[open]")) {
      if (!popover.contains(event.target)) popover.open = false;
    }
    if (event.target.tagName === "DIALOG") event.target.close();
  });
  // A form is sent once, however often its button is pressed.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || "download" in form.dataset) return; // the page stays
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
    setTimeout(() => { // not before the form's values, the button's among them, are taken
      for (const button of form.querySelectorAll("button:not([type=button])")) button.disabled = true;
    });
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      for (const button of form.querySelectorAll("button")) button.disabled = false;
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.closest("[data-submit-on-change]")) event.target.form.requestSubmit();
  });

  // Live parts (htmx): the session's token with each request, and what to say when there is no answer.
  const offline = document.getElementById("offline");
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = document.body.dataset.csrf;
  });
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, () => { offline.hidden = false; });
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.xhr.status) offline.hidden = event.detail.xhr.status < 500;
  });
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 500) { offline.hidden = false; return; }
    if (status === 401) return; // htmx goes to the log-in page
    let text = "Something went wrong.";
    try { text = JSON.parse(event.detail.xhr.responseText).detail; } catch { /* not JSON */ }
    toast("bad", text);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    showTimes(document);
    for (const log of document.querySelectorAll(".log[data-follow]")) log.scrollTop = log.scrollHeight;
    document.dispatchEvent(new CustomEvent("charts", { detail: event.detail.target ?? document }));
  });

  showTimes(document);
  for (const log of document.querySelectorAll(".log[data-follow]")) log.scrollTop = log.scrollHeight;
  window.recsys = { toast, showTimes };
  document.documentElement.classList.remove("loading");
})();
