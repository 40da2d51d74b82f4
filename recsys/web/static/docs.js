// Draws /openapi.json; the key entered under "Authorize" is kept for this page alone.
// Light or dark as the dashboard is.
const chosen = localStorage.getItem("recsys-theme");
const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark-mode", dark);

// What keeps the page from being read aloud well: links within buttons, a heading that is skipped, parts
// outside every landmark, and a choice between servers where there is one.
const readable = {
  wrapComponents: {
    DeepLink: (_, { React }) => ({ text }) => React.createElement("span", null, text),
    operations: (Operations, { React }) => (given) =>
      React.createElement(React.Fragment, null, React.createElement("h2", { className: "title" }, "Operations"), React.createElement(Operations, given)),
    InfoContainer: (Info, { React }) => (given) => React.createElement("section", { "aria-label": "About this API" }, React.createElement(Info, given)),
    SchemesContainer: (Schemes, { React }) => (given) =>
      React.createElement("section", { "aria-label": "Access" }, React.createElement(Schemes, given)),
    ServersContainer: () => () => null,
  },
};

window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#api",
    deepLinking: true,
    displayRequestDuration: true,
    plugins: [readable],
    validatorUrl: null,
  });
});
