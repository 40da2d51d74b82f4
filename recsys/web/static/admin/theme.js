// Runs before the page is painted: the theme somebody chose, else the system's.
(() => {
  const chosen = localStorage.getItem("recsys-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();

// Until the other scripts are there a click would be lost: the page takes none, for a moment at most.
document.documentElement.classList.add("loading");
setTimeout(() => document.documentElement.classList.remove("loading"), 5000);
