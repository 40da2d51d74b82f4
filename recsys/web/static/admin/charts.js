// Draws each <figure data-chart> from the JSON beside it, with uPlot; exports it as CSV and PNG.
"use strict";

(() => {
  // Lines differ by dash and by marker, so that they can be told apart without colour.
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4], [4, 2], [1, 2]];
  const WHOLE = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 1e8, 1e9];
  const drawn = new Map();
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (at) => style(`--series-${(at % 7) + 1}`);
  const grouped = new Intl.NumberFormat(undefined, { maximumFractionDigits: 4 });
  const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
  const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

  function fade(value, share) {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
    return `rgba(${r}, ${g}, ${b}, ${share})`;
  }
  function text(value, unit, brief) {
    if (value === null || value === undefined) return "–";
    if (unit === "%") return `${(value * 100).toLocaleString(undefined, { maximumSignificantDigits: brief ? 3 : 4 })} %`;
    if (unit === "B") {
      const at = value > 0 ? Math.min(4, Math.floor(Math.log2(value) / 10)) : 0;
      return `${(value / 2 ** (10 * at)).toLocaleString(undefined, { maximumSignificantDigits: 4 })} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
    }
    const plain = brief && Math.abs(value) >= 10000 ? short.format(value) : Math.abs(value) < 1 && value !== 0
      ? value.toLocaleString(undefined, { maximumSignificantDigits: 3 }) : grouped.format(value);
    return unit ? `${plain} ${unit}` : plain;
  }
  // Steps of whole days are UTC days, and are named so in every zone.
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
  const shortDay = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
  const daily = (chart) => chart.x_kind === "time" && chart.x.length > 0 && chart.x.every((x) => x % 86400 === 0);
  // Days as everywhere else; hours between them where steps are shorter.
  const localDay = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  function moments(_plot, splits) {
    return splits.map((one) => {
      const at = new Date(one * 1000);
      return at.getHours() + at.getMinutes() === 0 ? localDay.format(at) : hour.format(at);
    });
  }
  function place(chart, x) {
    if (daily(chart)) return day.format(new Date(x * 1000));
    return chart.x_kind === "time" ? clock.format(new Date(x * 1000)) : grouped.format(x);
  }

  // Sums for stacked charts: each series is drawn on top of those before it.
  function stack(chart) {
    const sums = chart.x.map(() => 0);
    return chart.series.map((one) => one.values.map((value, at) => (sums[at] += value || 0)));
  }

  function legend(figure, chart, at) {
    const rows = chart.series.map((one, number) => {
      const line = document.createElement("span");
      const ns = "http://www.w3.org/2000/svg";
      const key = document.createElementNS(ns, "svg");
      key.setAttribute("viewBox", "0 0 22 8");
      key.setAttribute("aria-hidden", "true");
      const mark = document.createElementNS(ns, chart.kind === "line" ? "line" : "rect");
      const given = chart.kind === "line"
        ? { x1: 0, x2: 22, y1: 4, y2: 4, stroke: colour(number), "stroke-width": 2, "stroke-dasharray": DASHES[number % DASHES.length].map((d) => d * 0.7).join(" ") }
        : { x: 7, y: 0, width: 8, height: 8, rx: 2, fill: colour(number) };
      for (const [name, value] of Object.entries(given)) mark.setAttribute(name, value);
      key.append(mark);
      line.append(key, one.label);
      if (at !== null) {
        const value = document.createElement("b");
        value.textContent = text(one.values[at], chart.unit);
        line.append(value);
      }
      return line;
    });
    if (at !== null) {
      const where = document.createElement("span");
      where.textContent = place(chart, chart.x[at]);
      rows.push(where);
    }
    figure.querySelector(".chart-legend").replaceChildren(...(chart.series.length > 1 || chart.kind === "stacked" || at !== null ? rows : []));
  }

  function options(figure, chart, area) {
    const muted = style("--muted");
    const grid = { stroke: style("--grid"), width: 1 };
    const font = `11px ${style("--font")}`;
    const series = [{}];
    const data = [chart.x];
    const bands = [];
    const paths = chart.kind === "line" ? undefined : uPlot.paths.bars({ size: [0.86, 60], align: 0, radius: 0.12 });
    const stacked = chart.kind === "stacked";
    const tops = stacked ? stack(chart) : null;
    // The tallest of a stack is drawn first, so that the lower ones lie on it.
    const order = chart.series.map((_, at) => (stacked ? chart.series.length - 1 - at : at));
    for (const at of order) {
      const one = chart.series[at];
      const line = colour(at);
      series.push({
        label: one.label, stroke: chart.kind === "line" ? line : style("--surface"), width: chart.kind === "line" ? 2 : chart.x.length > 60 ? 0 : 1,
        dash: chart.kind === "line" ? DASHES[at % DASHES.length] : undefined, paths,
        fill: chart.kind === "line" ? (chart.series.length === 1 && !one.low ? fade(line, 0.1) : undefined) : line,
        points: { show: chart.kind === "line" && one.values.filter((value) => value !== null).length < 40, size: 5, fill: line, stroke: line }, spanGaps: false,
      });
      data.push(stacked ? tops[at] : one.values);
      if (one.low && one.high) {
        series.push({ label: "", stroke: "transparent", width: 0, points: { show: false } }, { label: "", stroke: "transparent", width: 0, points: { show: false } });
        data.push(one.high, one.low);
        bands.push({ series: [data.length - 2, data.length - 1], fill: fade(line, 0.15) });
      }
    }
    const range = (_plot, low, high) => chart.log ? [low > 0 ? low * 0.8 : 0.001, high * 1.25] : [Math.min(0, low ?? 0), (high || 1) * 1.06];
    // Bars need room for half of one at either end.
    const steps = chart.x.slice(1).map((x, at) => x - chart.x[at]);
    const half = chart.kind === "line" ? 0 : (steps.length ? Math.min(...steps) : 1) * 0.55;
    const ends = half ? [chart.x[0] - half, chart.x[chart.x.length - 1] + half] : undefined;
    const free = chart.kind === "line" && chart.series.some((one) => one.low);
    return [{
      width: area.clientWidth, height: area.clientHeight, series, bands,
      cursor: { y: false, points: { show: chart.kind === "line" }, drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { time: chart.x_kind === "time", range: ends && (() => ends) }, y: { distr: chart.log ? 3 : 1, range: free ? undefined : range } },
      axes: [
        { stroke: muted, grid: { show: false }, ticks: { show: false }, font, space: 64, size: 24, gap: 4,
          ...(daily(chart) ? { splits: (plot) => {
            const each = Math.max(1, Math.ceil(chart.x.length / Math.max(1, Math.floor(plot.width / 80))));
            return chart.x.filter((_, at) => (chart.x.length - 1 - at) % each === 0);
          } } : {}),
          incrs: chart.x_kind !== "time" && chart.x.every(Number.isInteger) ? WHOLE : undefined,
          values: daily(chart) ? (_plot, splits) => splits.map((one) => shortDay.format(new Date(one * 1000))) : chart.x_kind === "time" ? moments : (_plot, splits) => splits.map((one) => (one === null ? "" : short.format(one))) },
        { stroke: muted, grid, ticks: { show: false }, font, size: chart.unit === "B" ? 72 : 54, gap: 6, space: 36,
          incrs: chart.whole ? WHOLE : undefined,
          values: (_plot, splits) => splits.map((one) => (one === null ? "" : text(one, chart.unit, true))) },
      ],
      hooks: { setCursor: [(plot) => legend(figure, chart, plot.cursor.idx ?? null)] },
      padding: [8, 26, 0, 0], // half of the last label
    }, data];
  }

  function draw(figure) {
    const source = figure.querySelector("script[type='application/json']");
    if (!source) return;
    const chart = JSON.parse(source.textContent);
    const area = figure.querySelector(".chart-area");
    const old = drawn.get(figure);
    if (old) { old.plot.destroy(); old.watch.disconnect(); }
    const [given, data] = options(figure, chart, area);
    const plot = new uPlot(given, data, area);
    legend(figure, chart, null);
    const watch = new ResizeObserver(() => {
      if (area.clientWidth) plot.setSize({ width: area.clientWidth, height: area.clientHeight });
    });
    watch.observe(area);
    drawn.set(figure, { plot, watch, chart });
  }

  function columns(chart) {
    return chart.series.flatMap((one) => one.low ? [[one.label, one.values], [`${one.label} low`, one.low], [`${one.label} high`, one.high]] : [[one.label, one.values]]);
  }
  function lines(rows) {
    const cell = (value) => {
      let words = value === null || value === undefined ? "" : String(value);
      if (typeof value === "string" && /^'*[=+\-@\t\r\n＝＋－＠]/.test(words)) words = `'${words}`; // no formula
      return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
    };
    return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }
  function csv(chart) {
    const shown = columns(chart);
    const rows = chart.x.map((x, at) => [chart.x_kind === "time" ? new Date(x * 1000).toISOString() : x, ...shown.map(([, values]) => values[at])]);
    return lines([[chart.x_label, ...shown.map(([label]) => label)], ...rows]);
  }
  // A histogram that the server has drawn as a table of bars.
  function bars(card) {
    const head = [...card.querySelectorAll("thead th")].map((one) => one.textContent);
    const rows = [...card.querySelectorAll("tbody tr")].map((row) => [row.querySelector("th").textContent, Number(row.querySelector("[data-value]").dataset.value)]);
    return { key: card.dataset.bars, title: card.querySelector("h2").textContent, head: [head[0], head[2]], rows };
  }
  function barsPng({ key, title, rows }) {
    const ratio = devicePixelRatio || 1;
    const [width, step, label] = [640, 26, 150];
    const to = document.createElement("canvas");
    to.width = width * ratio;
    to.height = (rows.length * step + 48) * ratio;
    const ink = to.getContext("2d");
    ink.scale(ratio, ratio);
    ink.fillStyle = style("--surface");
    ink.fillRect(0, 0, width, to.height);
    ink.fillStyle = style("--text");
    ink.font = `600 14px ${style("--font")}`;
    ink.fillText(title, 10, 22);
    ink.font = `12px ${style("--font")}`;
    const most = Math.max(1, ...rows.map(([, value]) => value));
    rows.forEach(([name, value], at) => {
      const y = 40 + at * step;
      ink.fillStyle = style("--text");
      ink.fillText(name, 10, y + 14);
      ink.fillText(grouped.format(value), width - 80, y + 14);
      ink.fillStyle = colour(0);
      ink.fillRect(label, y + 3, ((width - label - 100) * value) / most, step - 12);
    });
    to.toBlob((blob) => save(`${key}.png`, blob));
  }
  function save(name, blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function png(figure, { plot, chart }) {
    const from = plot.ctx.canvas;
    const ratio = devicePixelRatio || 1;
    const to = document.createElement("canvas");
    to.width = from.width;
    to.height = from.height + 56 * ratio;
    const ink = to.getContext("2d");
    ink.fillStyle = style("--surface");
    ink.fillRect(0, 0, to.width, to.height);
    ink.drawImage(from, 0, 32 * ratio);
    ink.scale(ratio, ratio);
    ink.fillStyle = style("--text");
    ink.font = `600 14px ${style("--font")}`;
    ink.fillText(chart.title, 10, 20);
    ink.font = `12px ${style("--font")}`;
    let x = 10;
    const y = to.height / ratio - 10;
    chart.series.forEach((one, at) => {
      ink.strokeStyle = ink.fillStyle = colour(at);
      ink.lineWidth = 2;
      ink.setLineDash(chart.kind === "line" ? DASHES[at % DASHES.length] : []);
      ink.beginPath(); ink.moveTo(x, y - 4); ink.lineTo(x + 22, y - 4); ink.stroke();
      ink.fillStyle = style("--text");
      ink.fillText(one.label, x + 28, y);
      x += 44 + ink.measureText(one.label).width;
    });
    to.toBlob((blob) => save(`${chart.key}.png`, blob));
  }
  function table(details, chart) {
    if (details.querySelector("table")) return;
    const box = document.createElement("div");
    box.className = "table";
    box.tabIndex = 0;
    const made = document.createElement("table");
    const shown = columns(chart);
    const head = made.createTHead().insertRow();
    for (const name of [chart.x_label, ...shown.map(([label]) => label)]) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = name;
      head.append(th);
    }
    const body = made.createTBody();
    chart.x.forEach((x, at) => {
      const row = body.insertRow();
      row.insertCell().textContent = place(chart, x);
      for (const [, values] of shown) row.insertCell().textContent = text(values[at], chart.unit);
    });
    box.append(made);
    details.append(box);
  }

  function drawAll(within) {
    for (const figure of drawn.keys()) if (!figure.isConnected) { drawn.get(figure).watch.disconnect(); drawn.delete(figure); }
    for (const figure of within.querySelectorAll("figure[data-chart]")) draw(figure);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-export]");
    if (!button) return;
    const card = button.closest("[data-bars]");
    if (card) {
      const found = bars(card);
      if (button.dataset.export === "csv") save(`${found.key}.csv`, new Blob([lines([found.head, ...found.rows])], { type: "text/csv" }));
      else barsPng(found);
      return;
    }
    const figure = button.closest("figure");
    const one = drawn.get(figure);
    if (button.dataset.export === "csv") save(`${one.chart.key}.csv`, new Blob([csv(one.chart)], { type: "text/csv" }));
    else png(figure, one);
  });
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    if (details.matches && details.matches("details.chart-table") && details.open) table(details, drawn.get(details.closest("figure")).chart);
  }, true);
  document.addEventListener("charts", (event) => drawAll(event.detail));
  document.addEventListener("theme", () => drawAll(document));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
  drawAll(document);
})();
