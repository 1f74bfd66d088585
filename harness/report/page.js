"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const COLOURS = new Set(["color", "fillcolor", "line", "marker", "colorscale"]);
  const CONFIG = { displayModeBar: false, responsive: true, showTips: false, displaylogo: false };
  const drawn = new Set();

  // ---- colour scheme -------------------------------------------------------------------------------------------
  const names = { auto: "Auto", light: "Light", dark: "Dark" };
  const remember = {
    get() { try { return localStorage.getItem("seedbed-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("seedbed-theme", value); } catch { /* a file's storage may be closed */ } },
  };
  let chosen = names[remember.get()] ? remember.get() : "auto";
  const scheme = () => (chosen === "auto" ? (prefersDark.matches ? "dark" : "light") : chosen);

  function applyTheme() {
    if (chosen === "auto") delete root.dataset.theme; else root.dataset.theme = chosen;
    const button = document.getElementById("theme");
    button.querySelector(".word").textContent = names[chosen];
    button.setAttribute("aria-label", `Colour scheme: ${names[chosen].toLowerCase()}`);
    drawn.forEach(draw);
  }

  function recoloured(value, key) {
    if (typeof value === "string") return data.recolour[value] || value;
    if (Array.isArray(value)) return key === "colorscale" ? value.map(([stop, c]) => [stop, recoloured(c)]) : value;
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, COLOURS.has(k) ? recoloured(v, k) : v]));
    }
    return value;
  }

  // ---- figures -------------------------------------------------------------------------------------------------
  function figureOf(element) {
    const card = element.closest("[data-curves]");
    if (!card) return data.figures[element.dataset.figure];
    const figure = data.curves[card.dataset.curves][card.querySelector("select").value];
    const off = new Set([...card.querySelectorAll(".legend [aria-pressed=false]")].map((b) => b.dataset.label));
    const log = card.querySelector(".log").getAttribute("aria-pressed") === "true";
    const yaxis = log ? { ...figure.layout.yaxis, type: "log", range: undefined } : figure.layout.yaxis;
    return { data: figure.data.filter((trace) => !off.has(trace.legendgroup)), layout: { ...figure.layout, yaxis } };
  }

  function draw(element) {
    const figure = figureOf(element);
    const traces = scheme() === "dark" ? figure.data.map((trace) => recoloured(trace)) : figure.data;
    const layout = { ...figure.layout, template: { layout: data.themes[scheme()] }, dragmode: coarse.matches ? false : "zoom" };
    if (element.clientWidth < 420 && layout.hovermode) layout.hovermode = "x";
    drawn.add(element);
    Plotly.react(element, structuredClone(traces), structuredClone(layout), CONFIG);
  }

  const plots = [...document.querySelectorAll(".plotly")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target)) { watcher.unobserve(entry.target); draw(entry.target); }
    }
  }, { rootMargin: "600px" });

  // ---- curves --------------------------------------------------------------------------------------------------
  for (const card of document.querySelectorAll("[data-curves]")) {
    const plot = card.querySelector(".plotly");
    card.querySelector("select").addEventListener("change", () => draw(plot));
    for (const button of card.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        draw(plot);
      });
    }
  }

  // ---- the table of trials -------------------------------------------------------------------------------------
  const table = document.getElementById("table");
  const bodies = [...table.tBodies];
  const find = document.getElementById("find");
  const chips = [...document.querySelectorAll(".chip")];
  const haystack = new Map(bodies.map((body) => [body, body.textContent.toLowerCase().replace(/\s+/g, " ")]));

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.state));
    let shown = 0;
    for (const body of bodies) {
      const fits = (!states.size || states.has(body.dataset.state)) && words.every((w) => haystack.get(body).includes(w));
      body.hidden = !fits;
      shown += fits;
    }
    const all = shown === bodies.length;
    document.getElementById("count").textContent = all ? `${shown} trials` : `${shown} of ${bodies.length} trials`;
  }

  function compare(key, sign) {
    const name = `k${key[0].toUpperCase()}${key.slice(1)}`;
    return (a, b) => {
      const [x, y] = [a.dataset[name], b.dataset[name]];
      if (x === "" || y === "") return (x === "") - (y === ""); // what has no value comes last, either way
      const order = key === "label" || key === "state" ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y);
      return sign * order;
    };
  }

  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const cell = button.closest("th");
      const up = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      bodies.sort(compare(button.dataset.key, up ? 1 : -1));
      table.append(...bodies);
    });
  }
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  find.addEventListener("input", filter);
  table.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (!button) return;
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
  });

  // ---- start ---------------------------------------------------------------------------------------------------
  document.getElementById("theme").addEventListener("click", () => {
    const order = Object.keys(names);
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    remember.set(chosen);
    applyTheme();
  });
  prefersDark.addEventListener("change", applyTheme);
  addEventListener("beforeprint", () => { chosen = "light"; plots.forEach(draw); });
  addEventListener("afterprint", () => { chosen = names[remember.get()] ? remember.get() : "auto"; applyTheme(); });
  applyTheme();
  plots.forEach((plot) => watcher.observe(plot));
})();
