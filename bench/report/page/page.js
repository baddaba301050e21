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

  const wrapped = (text, most) => {
    const found = [""];
    for (const word of text.replaceAll("<br>", " ").split(" ")) {
      const longer = `${found.at(-1)} ${word}`.trim();
      if (plain(longer).length <= most || !found.at(-1)) found[found.length - 1] = longer;
      else found.push(word);
    }
    return found;
  };

  // Rows whose names stand left of them on a wide screen have them above on a narrow one, where nothing else is left to the marks.
  const named = (given, width) => {
    const { yaxis, ...rest } = given;
    if (!yaxis.ticktext || width >= 480) return given;
    const texts = yaxis.ticktext.map((text) => wrapped(text, Math.floor(width / 7.5)));
    const tall = Math.max(...texts.map((text) => text.length)) * 16;
    const row = Math.max(56, tall / 0.36); // bars take 0.6 of a row
    return {
      ...rest, height: 80 + row * (texts.length + 0.2),
      yaxis: { ...yaxis, showticklabels: false, ticks: "", range: [yaxis.range[0], -0.7] },
      annotations: texts.map((text, i) => ({ text: text.join("<br>"), x: 0, xref: "paper", xanchor: "left", xshift: -2, y: i - 0.3, yref: "y", yanchor: "bottom", borderpad: 0, align: "left", showarrow: false, font: { size: 12 } })),
    };
  };

  const layout = (spec, box) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => (printing ? { "--paper": "#fff", "--ink": "#1d2126", "--line": "#d6dae0" }[name] : style.getPropertyValue(name).trim());
    const axis = (given) => ({
      gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), tickfont: { size: 12 },
      nticks: printing || box.clientWidth < 400 ? 4 : 7, tickangle: 0, ...given, title: given.title && { font: { size: 13 }, standoff: 8, ...given.title },
    });
    const own = named(spec.layout, printing ? (wide(spec) ? 960 : 305) : box.clientWidth);
    const rows = own.yaxis.tickvals; // names need all of their height, and the width of the page where there are pairs
    const least = wide(spec) ? Math.min(own.height, Math.max(300, 96 + 20 * (rows?.length ?? 0))) : own.height;
    const paper = printing ? { width: wide(spec) ? 960 : 305, autosize: false, height: rows ? least : Math.min(own.height, 280) } : {};
    const across = printing && wide(spec) && rows ? { ticktext: own.yaxis.ticktext.map((text) => text.replaceAll("<br>", " ")) } : {};
    return {
      ...own, ...paper, xaxis: axis(own.xaxis), yaxis: axis({ ...own.yaxis, ...across }), showlegend: false, hovermode: "closest", dragmode: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 14, t: 8, b: 10 },
      font: { color: colour("--ink"), family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--ink"), font: { color: colour("--ink"), size: 13 }, align: "left" },
    };
  };

  const draw = (box) => {
    const spec = drawn.get(box);
    box.style.minHeight = printing ? "" : `${named(spec.layout, box.clientWidth).height}px`;
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
    const shown = spec.data.filter((trace) => trace.hoverinfo !== "skip");
    const heights = !spec.layout.yaxis.ticktext; // otherwise they are places of names
    const ranged = shown.some((trace) => Array.isArray(trace.customdata?.[0]));
    const titles = ["", spec.layout.xaxis.title.text, ...(heights ? [spec.layout.yaxis.title.text] : []), ...(ranged ? ["from", "to"] : [])];
    const rows = shown.flatMap((trace) => trace.x.map((x, i) => [plain(trace.name || ""), x, ...(heights ? [trace.y[i]] : []), ...(ranged ? trace.customdata?.[i] ?? ["", ""] : [])]));
    const cell = (value) => make("td", { textContent: typeof value === "number" ? +value.toPrecision(6) : value ?? "" });
    return make("table", {}, make("thead", {}, make("tr", {}, ...titles.map((text) => make("th", { textContent: text, scope: "col" })))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))));
  };

  // ---- legends: each line as it is drawn, dash and mark
  const dashes = { solid: "", dash: "7 4", dashdot: "7 3 2 3", dot: "2 3", longdash: "11 4", longdashdot: "11 3 2 3" };
  const around = (radii, turn = 0) => radii.map((r, i) => {
    const angle = turn + (2 * Math.PI * i) / radii.length;
    return `${(18 + r * Math.sin(angle)).toFixed(1)},${(7 - r * Math.cos(angle)).toFixed(1)}`;
  }).join(" ");
  const plus = "16.2,1.5 19.8,1.5 19.8,5.2 23.5,5.2 23.5,8.8 19.8,8.8 19.8,12.5 16.2,12.5 16.2,8.8 12.5,8.8 12.5,5.2 16.2,5.2";
  const marks = {
    circle: around(Array(24).fill(4.5)), square: around(Array(4).fill(6), Math.PI / 4), diamond: around(Array(4).fill(6)),
    "triangle-up": around(Array(3).fill(6)), "triangle-down": around(Array(3).fill(6), Math.PI), cross: plus, x: plus,
    star: around([6.5, 2.6, 6.5, 2.6, 6.5, 2.6, 6.5, 2.6, 6.5, 2.6]),
  };
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  const swatch = (spec, label) => {
    const trace = spec.data.find((one) => one.meta === label && one.marker);
    const colour = tone(trace.marker.color);
    const mark = svg("polygon", { points: marks[trace.marker.symbol] ?? marks.circle, fill: colour });
    if (trace.marker.symbol === "x") mark.setAttribute("transform", "rotate(45 18 7)");
    const found = svg("svg", { class: "sample", width: 36, height: 14, viewBox: "0 0 36 14", "aria-hidden": "true" }, mark);
    if (trace.mode.includes("lines")) {
      found.prepend(svg("path", { d: "M0 7H36", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes[trace.line.dash] ?? trace.line.dash.replaceAll("px", "") }));
    }
    return found;
  };

  const legend = (list, spec) => {
    const away = hidden();
    list.replaceChildren(...spec.labels.filter((label) => !away.has(label)).map((label) => make("li", {}, swatch(spec, label), label)));
  };

  const show = () => {
    const grid = byId("grid");
    if (!grid) return;
    for (const box of drawn.keys()) {
      watcher.unobserve(box);
      if (box.dataset.drawn) window.Plotly.purge(box);
    }
    drawn.clear();
    const settings = [...(byId("setting")?.options ?? [])].map((option) => option.textContent);
    const chosen = byId("setting") ? Number(byId("setting").value) : 0;
    const wanted = specs.filter((spec) => spec.place === null || spec.place === chosen || printing); // paper has room for all settings
    grid.replaceChildren(...wanted.flatMap((spec, i) => {
      const heading = printing && settings.length && spec.place !== wanted[i - 1]?.place;
      const above = heading ? [make("h3", { textContent: spec.place === null ? "All settings" : settings[spec.place] })] : [];
      const box = make("div", { className: "plot" });
      if (!printing) box.style.minHeight = `${spec.layout.height}px`;
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
      legend(list, spec);
      drawn.set(box, spec);
      if (!printing) watcher.observe(box);
      return [...above, figure];
    }));
  };

  const relegend = () => { for (const [box, spec] of drawn) legend(box.parentElement.querySelector(".legend"), spec); };
  const redraw = () => {
    relegend();
    for (const box of drawn.keys()) if (box.dataset.drawn) draw(box);
  };

  show();
  byId("controls")?.addEventListener("submit", (event) => event.preventDefault());
  byId("setting")?.addEventListener("change", show);
  byId("shown")?.addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => { // names of rows move above them and back, tables become cards and tables again
    if (width !== innerWidth && !printing) {
      redraw();
      fitAll();
    }
    width = innerWidth;
  });

  // ---- tables
  const tables = [];

  // A table that is too wide becomes cards, a row each, whose values say which column they are of: nothing scrolls sideways.
  const fit = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    for (const row of table.tBodies[0].rows) {
      for (const cell of row.cells) {
        if (cell.colSpan > 1) continue;
        cell.dataset.label ??= heads[cell.cellIndex];
        const words = cell.textContent.trim();
        cell.classList.toggle("blank", !words && !cell.querySelector("img"));
        cell.classList.toggle("phrase", words.length > 12);
        cell.classList.toggle("wordy", words.length > 24 && !cell.querySelector("details"));
      }
    }
    const box = table.closest(".scroll");
    table.classList.remove("cards");
    table.classList.toggle("cards", !printing && box.clientWidth > 0 && table.scrollWidth > box.clientWidth + 1);
  };
  const fitAll = (within = document) => within.querySelectorAll(".scroll table:has(thead)").forEach(fit);
  document.addEventListener("toggle", ({ target }) => { if (!printing && !target.closest("table, figure")) fitAll(target); }, true); // folded up it had no width

  // Columns of few different words can be chosen from: typing "maml" finds its every setting, choosing it that line alone.
  const choices = (table, library) => {
    const bar = library.table().container().querySelector(".dt-search");
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (head.dataset.choose === undefined) return;
      const of = library.column(i, { order: "index" }).nodes().toArray().map((cell) => cell.dataset.word ?? cell.textContent.trim());
      const words = [...new Set(of)];
      if (words.length < 2 || words.length > 60) return;
      const list = make("select", {}, make("option", { value: "", textContent: `all: ${head.textContent.trim()}` }), ...words.map((word) => make("option", { value: word, textContent: word })));
      list.setAttribute("aria-label", `Only this ${head.textContent.trim()}`);
      list.addEventListener("change", () => library.column(i).search.fixed("chosen", list.value ? (text, row, place) => of[place] === list.value : null).draw());
      bar?.append(list);
    });
  };

  const ready = async () => {
    const text = byId("table-library");
    if (!text) return;
    const url = URL.createObjectURL(new Blob([text.textContent], { type: "text/javascript" }));
    const { default: DataTable } = await import(url);
    URL.revokeObjectURL(url);
    for (const table of document.querySelectorAll("table.sortable")) {
      const rows = Number(table.dataset.rows);
      const count = table.tBodies[0].rows.length, many = count > rows;
      const filter = count > 7 || table.querySelector("[data-choose]") ? "search" : null;
      tables.push(new DataTable(table, {
        pageLength: rows, lengthMenu: [...new Set([10, rows, 100, 500])], paging: many, info: many, order: [], autoWidth: false, orderClasses: false, search: { boundary: true },
        layout: { topStart: many ? "pageLength" : null, topEnd: filter, bottomStart: many ? "info" : null, bottomEnd: many ? "paging" : null },
        language: { search: "Filter:", zeroRecords: "no row has all of these words", lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_", infoEmpty: "no row", infoFiltered: "(of _MAX_)" },
      }));
      tables.at(-1).on("draw", () => fit(table));
      choices(table, tables.at(-1));
      // What unfolds gets a row of its own: in its cell it would lie beyond the edge, and under the column that stays.
      const library = tables.at(-1);
      table.addEventListener("toggle", ({ target: details }) => {
        if (printing || details.tagName !== "DETAILS") return;
        const row = library.row(details.closest("tr"));
        for (const other of details.closest("tr").querySelectorAll("details")) if (other !== details && details.open) other.open = false;
        if (details.open) row.child(details.lastElementChild.cloneNode(true), "unfolded").show();
        else if (![...row.node().querySelectorAll("details")].some((other) => other.open)) row.child.remove();
      }, true);
      table.tHead.addEventListener("keydown", (event) => {
        if (event.key === " ") {
          event.preventDefault();
          event.target.click();
        }
      });
    }
  };
  ready().then(() => {
    fitAll();
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  });

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
      fitAll();
      show();
      for (const box of drawn.keys()) draw(box);
    } else {
      tables.forEach((table, i) => table.page.len(lengths[i]).draw());
      fitAll();
      show();
    }
    for (const details of opened) details.open = paper;
  };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
})();
