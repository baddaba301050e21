"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plain = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;

  // ---- figures, drawn when they come into sight
  const source = byId("figures-data");
  const specs = source ? JSON.parse(source.textContent) : [];
  const drawn = new Map(); // plot element -> spec
  let printing = false;

  const library = () => {
    if (!window.Plotly) {
      // Kept as text until now, so that tables and words need not wait for it.
      document.head.append(make("script", { textContent: byId("plot-library").textContent }));
    }
    return window.Plotly;
  };

  const onDark = JSON.parse(byId("on-dark")?.textContent ?? "{}");
  const tone = (colour) => (dark.matches && !printing && onDark[colour]) || colour;

  const toned = (value, key) => {
    if (Array.isArray(value)) return value.map((item) => toned(item, key));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, toned(v, k)]));
    return (key === "color" || key === "fillcolor") && typeof value === "string" ? tone(value) : value;
  };

  const hidden = () => new Set([...document.querySelectorAll("#shown input:not(:checked)")].map((box) => box.value));

  const traces = (spec) => {
    const away = hidden();
    const ink = printing ? "#1d2126" : getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    return toned(spec.data).map((trace) => ({
      ...trace, showlegend: false, visible: !away.has(trace.meta), ...(trace.error_x && { error_x: { color: ink, thickness: 1.5, ...trace.error_x } }),
    }));
  };

  const wide = (spec) => ["differences", "published"].includes(spec.kind);

  const layout = (spec, box) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => (printing ? { "--paper": "#fff", "--ink": "#1d2126", "--line": "#d6dae0" }[name] : style.getPropertyValue(name).trim());
    const axis = (given) => ({
      gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), tickfont: { size: 12 },
      nticks: printing || box.clientWidth < 400 ? 5 : 7, ...given, title: given.title && { font: { size: 13 }, standoff: 8, ...given.title },
    });
    const rows = spec.layout.yaxis.tickvals; // names need all of their height, and the width of the page where there are pairs
    const paper = printing ? { width: rows && wide(spec) ? 960 : 305, autosize: false, height: rows ? spec.layout.height : Math.min(spec.layout.height, 280) } : {};
    return {
      ...spec.layout, ...paper, xaxis: axis(spec.layout.xaxis), yaxis: axis(spec.layout.yaxis), showlegend: false, hovermode: "closest", dragmode: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 14, t: 8, b: 10 },
      font: { color: colour("--ink"), family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--ink"), font: { color: colour("--ink"), size: 13 }, align: "left" },
    };
  };

  const draw = (box) => {
    const spec = drawn.get(box);
    library().react(box, traces(spec), layout(spec, box), { responsive: !printing, displayModeBar: false, scrollZoom: false, showTips: false });
    box.dataset.drawn = "yes";
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "300px" });

  const numbers = (spec) => {
    const rows = [];
    for (const trace of spec.data) {
      if (trace.hoverinfo === "skip") continue;
      const across = trace.orientation === "h";
      trace.x.forEach((x, i) => rows.push([plain(trace.name || ""), x, across ? null : trace.y[i]]));
    }
    const named = !spec.layout.yaxis.ticktext; // otherwise heights are places of names
    const head = make("tr", {}, ...["", spec.layout.xaxis.title.text, ...(named ? [spec.layout.yaxis.title.text] : [])].map((t) => make("th", { textContent: t, scope: "col" })));
    const lines = rows.map((row) => make("tr", {}, ...row.slice(0, named ? 3 : 2).map((v) => make("td", { textContent: typeof v === "number" ? +v.toPrecision(6) : v ?? "" }))));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  };

  const swatch = (label) => {
    const box = [...document.querySelectorAll("#results-table .swatch")].find((s) => s.parentElement.textContent.trim() === label);
    const found = make("span", { className: "swatch" });
    if (box) found.style.cssText = box.style.cssText;
    return found;
  };

  const legend = (list, labels) => {
    const away = hidden();
    list.replaceChildren(...labels.filter((label) => !away.has(label)).map((label) => make("li", {}, swatch(label), label)));
  };

  const show = () => {
    const grid = byId("grid");
    if (!grid) return;
    for (const box of drawn.keys()) {
      watcher.unobserve(box);
      if (box.dataset.drawn) window.Plotly.purge(box);
    }
    drawn.clear();
    const chosen = byId("setting") ? Number(byId("setting").value) : 0;
    grid.replaceChildren(...specs.filter((spec) => spec.place === null || spec.place === chosen).map((spec) => {
      const box = make("div", { className: "plot" });
      box.style.minHeight = `${spec.layout.height}px`;
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${spec.title}. ${spec.note} The values are under Numbers.`);
      const list = make("ul", { className: "legend" });
      const details = make("details", {}, make("summary", { textContent: "Numbers" }));
      details.addEventListener("toggle", () => {
        if (!details.querySelector("table")) {
          const scroll = make("div", { className: "scroll", tabIndex: 0 }, numbers(spec));
          scroll.setAttribute("role", "region");
          scroll.setAttribute("aria-label", `Numbers of ${spec.title}`);
          details.append(scroll);
        }
      });
      const figure = make("figure", {}, make("figcaption", { textContent: spec.title }), make("p", { className: "note", textContent: spec.note }), list, box, details);
      figure.dataset.kind = spec.kind;
      figure.classList.toggle("wide", wide(spec));
      legend(list, spec.labels);
      drawn.set(box, spec);
      watcher.observe(box);
      return figure;
    }));
  };

  const redraw = () => { for (const box of drawn.keys()) if (box.dataset.drawn) draw(box); };

  show();
  byId("controls")?.addEventListener("submit", (event) => event.preventDefault());
  byId("setting")?.addEventListener("change", show);
  byId("shown")?.addEventListener("change", () => {
    for (const [box, spec] of drawn) legend(box.parentElement.querySelector(".legend"), spec.labels);
    redraw();
  });

  // ---- tables
  const tables = [];
  const ready = async () => {
    const text = byId("table-library");
    if (!text) return;
    const url = URL.createObjectURL(new Blob([text.textContent], { type: "text/javascript" }));
    const { default: DataTable } = await import(url);
    URL.revokeObjectURL(url);
    for (const table of document.querySelectorAll("table.sortable")) {
      const rows = Number(table.dataset.rows);
      const many = table.tBodies[0].rows.length > rows;
      tables.push(new DataTable(table, {
        pageLength: rows, lengthMenu: [10, rows, 100, 500], paging: many, info: many, order: [], autoWidth: false, orderClasses: false,
        layout: { topStart: many ? "pageLength" : null, topEnd: "search", bottomStart: many ? "info" : null, bottomEnd: many ? "paging" : null },
        language: { search: "Filter:", zeroRecords: "no row has all of these words", lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_", infoEmpty: "no row", infoFiltered: "(of _MAX_)" },
      }));
      // What scrolls is made by the library: arrow keys must reach it, and the space bar the headings.
      const outer = table.closest(".scroll"), inner = table.closest(".dt-layout-full, .dt-layout-cell");
      if (outer && inner && inner !== outer) {
        inner.tabIndex = 0;
        for (const name of ["role", "aria-label"]) inner.setAttribute(name, outer.getAttribute(name));
        for (const name of ["role", "aria-label", "tabindex"]) outer.removeAttribute(name);
      }
      table.tHead.addEventListener("keydown", (event) => {
        if (event.key === " ") {
          event.preventDefault();
          event.target.click();
        }
      });
    }
  };
  ready().then(() => { document.documentElement.dataset.ready = String(Math.round(performance.now())); });

  // ---- light, dark and paper
  const dress = () => document.documentElement.classList.toggle("dark", dark.matches && !printing);
  dress();
  dark.addEventListener("change", () => { dress(); redraw(); });
  let opened = [], lengths = [];
  const onPaper = (paper) => {
    printing = paper;
    dress();
    if (paper) {
      opened = [...document.querySelectorAll("main section > details:not([open]), table details:not([open])")];
      lengths = tables.map((table) => table.page.len());
      for (const table of tables) table.page.len(-1).draw();
      opened = [...opened, ...document.querySelectorAll("table details:not([open])")];
      for (const box of drawn.keys()) draw(box);
    } else {
      tables.forEach((table, i) => table.page.len(lengths[i]).draw());
      redraw();
    }
    for (const details of opened) details.open = paper;
  };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
})();
