// The page's own script. It reads the run from the JSON in the page and needs nothing else.
const data = JSON.parse(document.getElementById("run-data").textContent);

// ---- theme

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const field = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function setTheme(theme) {
  root.dataset.theme = theme;
  drawCharts();
}

document.getElementById("theme").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
});
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches ? "dark" : "light"));
addEventListener("beforeprint", () => setTheme("light"));

// ---- charts

let drawn = [];

function drawCharts() {
  for (const chart of drawn) chart.dispose();
  drawn = data.charts.map((spec) => {
    // SVG stays sharp on paper.
    const chart = echarts.init(document.getElementById(`chart-${spec.id}`), null, { renderer: "svg" });
    chart.setOption(chartOption(spec));
    if (reached.has(spec.id)) showPoint(spec, chart);
    return chart;
  });
}

function chartOption(spec) {
  const ink = color("--soft");
  const line = color("--line");
  const format = formatOf(spec);
  const axis = {
    axisLine: { lineStyle: { color: line } },
    axisLabel: { color: ink },
    splitLine: { lineStyle: { color: line } },
  };
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    grid: { left: 8, right: 16, top: 34, bottom: 24, containLabel: true },
    // One line, turned like pages: however many series there are, none of their names lies on the plot.
    legend: { type: "scroll", top: 0, left: 0, right: 0, itemWidth: 18, ...legendColors(ink, line) },
    tooltip: { trigger: "axis", confine: true, formatter: (rows) => tooltip(spec, rows, format) },
    xAxis: {
      ...axis,
      ...(spec.categories
        ? { type: "category", data: spec.categories, boundaryGap: spec.kind === "bars" }
        : spec.xName.endsWith("FLOPs")
          ? { type: "value" }
          : { type: "value", minInterval: 1, min: "dataMin", max: "dataMax" }),
      name: spec.xName,
      nameLocation: "middle",
      nameGap: 26,
      nameTextStyle: { color: ink },
      splitLine: { show: false },
    },
    yAxis: { ...axis, type: "value", ...yRange(spec), axisLabel: { color: ink, formatter: format } },
    series: spec.series.flatMap((series) => chartSeries(spec, series)),
  };
}

const yRange = ({ range }) => (range === null ? {} : { min: range[0], max: range[1] });

function legendColors(ink, faint) {
  const pages = { pageIconColor: ink, pageIconInactiveColor: faint, pageTextStyle: { color: ink } };
  return { textStyle: { color: ink }, ...pages };
}

const seriesColor = (series) => (series.color < 0 ? color("--s4") : color(`--s${series.color % 4}`));

function chartSeries(spec, series) {
  const stroke = seriesColor(series);
  const main = {
    name: series.name,
    type: spec.kind === "bars" ? "bar" : "line",
    data: series.points.map(([x, y]) => [x, y]),
    showSymbol: series.points.length <= 40,
    // The legend shows the symbol, and a line of one point is nothing but one.
    symbol: series.dashed ? "diamond" : "circle",
    symbolSize: 7,
    lineStyle: { width: 2, color: stroke, type: series.dashed ? "dashed" : "solid" },
    itemStyle: { color: stroke, opacity: series.opacity ?? 1 },
  };
  const intervals = series.points.filter(([, , low, high]) => low !== null && high !== null);
  if (intervals.length === 0) return [main];
  // The same name: the legend shows and hides both.
  const bars = {
    name: series.name,
    type: "custom",
    data: intervals.map(([x, , low, high]) => [x, low, high]),
    encode: { x: 0, y: [1, 2] },
    renderItem: (_, api) => intervalMark(api, stroke),
    tooltip: { show: false },
    z: 1,
  };
  return [main, bars];
}

function intervalMark(api, stroke) {
  const [x, low] = api.coord([api.value(0), api.value(1)]);
  const [, high] = api.coord([api.value(0), api.value(2)]);
  const segment = (x1, y1, x2, y2) => ({
    type: "line",
    shape: { x1, y1, x2, y2 },
    style: { stroke, lineWidth: 1.3, opacity: 0.75 },
  });
  return {
    type: "group",
    children: [segment(x, low, x, high), segment(x - 4, low, x + 4, low), segment(x - 4, high, x + 4, high)],
  };
}

// ---- charts by keys: arrows, Home and End walk over a chart's points, digits show and hide its series

/** By id of a chart: the x that the keys have reached. Charts are drawn anew while a run goes on. */
const reached = new Map();

const placesOf = (spec) =>
  [...new Set(spec.series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
const steps = {
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  Home: () => 0,
  End: () => Number.POSITIVE_INFINITY,
};

/** Listens once for all charts: their elements come and go with the run. */
document.addEventListener("keydown", (event) => {
  const id = event.target.closest?.(".chart")?.id;
  const index = data.charts.findIndex((spec) => `chart-${spec.id}` === id);
  if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const [spec, chart] = [data.charts[index], drawn[index]];
  const named = spec.series[Number(event.key) - 1];
  if (event.key in steps) walk(spec, chart, steps[event.key]);
  else if (event.key === "Escape") leave(spec, chart);
  else if (named !== undefined) chart.dispatchAction({ type: "legendToggleSelect", name: named.name });
  else return;
  event.preventDefault();
});

function walk(spec, chart, step) {
  const places = placesOf(spec);
  const before = reached.has(spec.id) ? places.indexOf(reached.get(spec.id)) : -1;
  const at = Math.min(Math.max(step(before), 0), places.length - 1);
  reached.set(spec.id, places[at]);
  field("chart-point").textContent = `${spec.title}: ${pointText(spec, places[at])}`;
  showPoint(spec, chart);
}

/** The tip of the pointer, at the place that the keys have reached. */
function showPoint(spec, chart) {
  const x = reached.get(spec.id);
  // Of a series that is shown: hidden ones have no tip.
  const hidden = chart.getOption().legend[0].selected ?? {};
  const series = chart
    .getOption()
    .series.findIndex(
      ({ type, name, data: own }) => type !== "custom" && hidden[name] !== false && own.some(([at]) => at === x),
    );
  if (series < 0) return;
  const dataIndex = chart.getOption().series[series].data.findIndex(([at]) => at === x);
  chart.dispatchAction({ type: "showTip", seriesIndex: series, dataIndex });
}

function leave(spec, chart) {
  reached.delete(spec.id);
  chart.dispatchAction({ type: "hideTip" });
  field("chart-point").textContent = "";
}

document.addEventListener("focusout", (event) => {
  const index = data.charts.findIndex((spec) => `chart-${spec.id}` === event.target.id);
  if (index >= 0) leave(data.charts[index], drawn[index]);
});

/** What is to be heard of all series at x. */
function pointText(spec, x) {
  const values = spec.series.flatMap(({ name, points }) =>
    points.filter(([at]) => at === x).map(([, y]) => `${name} ${formatOf(spec)(y)}`),
  );
  return `${placeText(spec, x)}: ${values.join(", ")}`;
}

const formatOf = (spec) => (value) =>
  spec.percent ? `${+(100 * value).toPrecision(4)} %` : `${+value.toPrecision(4)}`;
const placeText = (spec, x) =>
  spec.categories ? spec.categories[x] : `${spec.xName.split(" ")[0]} ${+x.toPrecision(4)}`;

function tooltip(spec, rows, format) {
  const lines = rows.filter((row) => row.seriesType !== "custom");
  if (lines.length === 0) return "";
  const x = lines[0].value[0];
  const title = placeText(spec, x);
  const body = lines.map((row) => {
    const point = spec.series[specIndex(spec, row.seriesName)].points.find(([at]) => at === x);
    const interval = point && point[2] !== null ? ` [${format(point[2])}, ${format(point[3])}]` : "";
    return `${row.marker}${escapeText(row.seriesName)} <b>${format(row.value[1])}</b>${interval}`;
  });
  return [title, ...body].join("<br>");
}

const specIndex = (spec, name) => spec.series.findIndex((series) => series.name === name);

addEventListener("resize", () => {
  for (const chart of drawn) chart.resize();
});

// ---- pairs

const pageSize = 20;
let page = 0;

function fillFilters() {
  fillFilter("pair-strategy", (pair) => pair.strategy);
  fillFilter("pair-iteration", (pair) => `${pair.iteration}`);
  fillFilter("pair-phase", (pair) => `${pair.phase}`);
  fillFilter("pair-roles", rolesOf);
}

/** The first option stays, and so does what is chosen. */
function fillFilter(id, get) {
  const select = field(id);
  const chosen = select.value;
  const values = [...new Set(data.pairs.map(get))].sort();
  select.replaceChildren(select.options[0], ...values.map((value) => element("option", "", value)));
  select.value = values.includes(chosen) ? chosen : "";
}

const rolesOf = (pair) => `${pair.chosen.role} over ${pair.rejected.role}`;

function matchingPairs() {
  const wanted = { strategy: field("pair-strategy").value, iteration: field("pair-iteration").value };
  const phase = field("pair-phase").value;
  const roles = field("pair-roles").value;
  const words = field("pair-search").value.toLowerCase();
  return data.pairs.filter(
    (pair) =>
      (wanted.strategy === "" || pair.strategy === wanted.strategy) &&
      (wanted.iteration === "" || `${pair.iteration}` === wanted.iteration) &&
      (phase === "" || `${pair.phase}` === phase) &&
      (roles === "" || rolesOf(pair) === roles) &&
      (words === "" || `${pair.prompt}\n${pair.chosen.text}\n${pair.rejected.text}`.toLowerCase().includes(words)),
  );
}

function showPairs() {
  const found = matchingPairs();
  const order = field("pair-order").value;
  const gap = (pair) => pair.chosen.score - pair.rejected.score;
  if (order === "small") found.sort((a, b) => gap(a) - gap(b));
  if (order === "large") found.sort((a, b) => gap(b) - gap(a));
  const pages = Math.max(1, Math.ceil(found.length / pageSize));
  page = Math.min(Math.max(page, 0), pages - 1);
  field("pair-count").textContent = `${found.length} of ${data.pairs.length} pairs`;
  field("pair-page").textContent = `page ${page + 1} of ${pages}`;
  field("pair-before").disabled = page === 0;
  field("pair-after").disabled = page === pages - 1;
  field("pair-list").replaceChildren(...found.slice(page * pageSize, (page + 1) * pageSize).map(pairCard));
}

function pairCard(pair) {
  const card = element("article", "card pair");
  const place = `${pair.strategy} · iteration ${pair.iteration} · phase ${pair.phase}`;
  const sides = element("div", "sides");
  sides.append(sideCard("chosen", pair.chosen), sideCard("rejected", pair.rejected));
  card.append(element("div", "soft", place), marked(element("div", "prompt"), pair.prompt), sides);
  return card;
}

function sideCard(name, side) {
  const card = element("div", `side ${name}`);
  const facts = element("div", "facts");
  const truth = side.trueScore === null ? "" : ` · true ${side.trueScore}`;
  facts.append(element("b", "", name), ` · score ${+side.score.toPrecision(3)}${truth} · ${side.role} (${side.model})`);
  card.append(facts, marked(element("div", "answer"), side.text));
  return card;
}

/** Text with the searched words marked; never read as HTML. */
function marked(target, text) {
  const words = field("pair-search").value.toLowerCase();
  const lower = text.toLowerCase();
  // Lower case may change lengths ("İ"): then places in it are not places in the text.
  if (words === "" || lower.length !== text.length) {
    target.append(text);
    return target;
  }
  let from = 0;
  for (let at = lower.indexOf(words); at >= 0; at = lower.indexOf(words, from)) {
    target.append(text.slice(from, at), element("mark", "", text.slice(at, at + words.length)));
    from = at + words.length;
  }
  target.append(text.slice(from));
  return target;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function escapeText(text) {
  const holder = document.createElement("span");
  holder.textContent = text;
  return holder.innerHTML;
}

function turnTo(next) {
  page = next;
  showPairs();
}

for (const id of ["pair-strategy", "pair-iteration", "pair-phase", "pair-roles", "pair-order"]) {
  field(id).addEventListener("change", () => turnTo(0));
}
field("pair-search").addEventListener("input", () => turnTo(0));
field("pair-before").addEventListener("click", () => turnTo(page - 1));
field("pair-after").addEventListener("click", () => turnTo(page + 1));

// ---- a run that goes on

function listen() {
  const source = new EventSource("events");
  const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("page", takePage);
  on("charts", ({ charts }) => {
    data.charts = charts;
    drawCharts();
  });
  on("status", ({ html }) => showStatus(html));
  on("end", () => {
    source.close();
    showStatus("");
  });
  source.addEventListener("error", () =>
    showStatus("The run does not answer: it was stopped, or this page lost it. It goes on here when the run does."),
  );
}

function showStatus(html) {
  field("live").innerHTML = html;
  field("live").hidden = html === "";
}

/** Replaces the parts that changed: what is searched, opened and scrolled to stays. The HTML is the server's own. */
function takePage({ body, charts, pairs }) {
  const next = new DOMParser().parseFromString(body, "text/html");
  for (const part of next.querySelectorAll("[data-part]")) {
    const shown = document.querySelector(`[data-part="${part.dataset.part}"]`);
    if (shown.innerHTML !== part.innerHTML && !part.dataset.part.endsWith("-charts")) shown.innerHTML = part.innerHTML;
    // Drawn charts differ from the server's: they are told apart by the charts that they hold.
    if (part.dataset.part.endsWith("-charts")) takeCharts(shown, part);
  }
  const more = pairs.length !== data.pairs.length;
  Object.assign(data, { charts, pairs });
  drawCharts();
  if (!more) return;
  fillFilters();
  showPairs();
}

function takeCharts(shown, next) {
  const ids = (part) => [...part.querySelectorAll(".chart")].map(({ id }) => id).join();
  if (ids(shown) !== ids(next)) shown.innerHTML = next.innerHTML;
}

fillFilters();
showPairs();
if (data.live) listen();
setTheme(prefersDark.matches ? "dark" : "light");
