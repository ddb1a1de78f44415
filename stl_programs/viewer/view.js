// Rows, panel, search and keys. Text from the record enters the page as text nodes and attribute values, never as HTML.

const byId = name => document.getElementById(name);
const tree = byId("tree"), sight = byId("sight"), detail = byId("detail"), query = byId("query");
const totals = record.totals;
const DEEPEST = 16; // levels of indentation; deeper rows say their depth instead

let rows = [];
let cursor = "n0"; // the key of the selected row
let needle = "", matches = [], match = -1, hits = new Set();

const keyOf = row => (row.node === undefined ? "m" + row.more : "n" + row.node);
const at = () => rows.findIndex(row => keyOf(row) === cursor);

function make(tag, look, ...content) {
  const element = document.createElement(tag);
  if (look) element.className = look;
  element.append(...content);
  return element;
}

const number = x => x.toLocaleString("en", Number.isInteger(x) ? {} : {maximumSignificantDigits: 6});
const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;
const money = dollars => (dollars === null ? "price unknown" : dollars === 0 ? "$0" : "$" + dollars.toPrecision(3));
const bill = cost => [count(cost.calls, "call"), count(cost.prompt_tokens, "prompt token"),
  count(cost.completion_tokens, "completion token"), money(cost.dollars)].join(", ");

const backedUp = (mean, most) =>
  `mean ${number(mean)}${most === null ? "" : `, highest ${number(most)}`} (0 to 1)`;

/** `text` in a span, its first match of the search marked. */
function marked(text, look) {
  const start = needle ? text.toLowerCase().indexOf(needle) : -1;
  const end = start + needle.length;
  return start < 0 ? make("span", look, text)
    : make("span", look, text.slice(0, start), make("mark", "", text.slice(start, end)), text.slice(end));
}

const line = text => text.slice(0, 1000).replace(/\s+/g, " ").slice(0, 300);

// One row

function worth(i) {
  return !nodes[i].value ? "not judged" : score(i) === null ? "missing" : number(score(i));
}

function meter(i) {
  const bar = make("span", "bar", make("span", "fill"));
  if (score(i) === null) return make("span", nodes[i].value ? "value missing" : "value none", worth(i));
  const range = totals.highest - totals.lowest;
  bar.style.setProperty("--v", range > 0 ? (score(i) - totals.lowest) / range : 1);
  return make("span", "value", bar, make("span", "number", worth(i)));
}

function tags(i) {
  const node = nodes[i];
  return [i === record.chosen && "answer", onPath.has(i) && i !== record.chosen && "chosen", node.kept && "kept",
    node.expanded && "expanded", node.terminal && "end"].filter(Boolean);
}

function rowElement(row, index) {
  const element = make("div", "row");
  const i = row.node ?? row.more, level = depth[i] + (row.node === undefined ? 1 : 0);
  element.id = "row-" + keyOf(row);
  element.dataset.index = index;
  element.setAttribute("role", "treeitem");
  element.setAttribute("aria-level", level + 1);
  element.setAttribute("aria-selected", keyOf(row) === cursor);
  const indent = make("span", "indent");
  indent.style.setProperty("--depth", Math.min(level, DEEPEST));
  element.append(indent);
  if (row.node === undefined) {
    element.classList.add("more");
    const next = Math.min(STEP, row.left);
    element.append(make("span", "text", `Show ${number(next)} more of ${number(row.left)} not shown`));
    return element;
  }
  const node = nodes[i], siblings = family(node.parent), isOpen = open.has(i);
  element.dataset.id = node.id;
  element.classList.toggle("chosen", onPath.has(i));
  element.classList.toggle("kept", Boolean(node.kept));
  element.classList.toggle("hit", hits.has(i));
  element.setAttribute("aria-setsize", siblings.length);
  element.setAttribute("aria-posinset", place[i] + 1);
  if (children[i].length) element.setAttribute("aria-expanded", isOpen);
  const text = make("span", "text");
  if (level > DEEPEST) text.append(make("span", "deep", `depth ${level}`));
  if (node.action !== null) text.append(marked(line(node.action), "action"), make("span", "arrow", "→"));
  text.append(marked(line(node.state), "state"));
  element.setAttribute("aria-label", [text.textContent, "value " + worth(i), ...tags(i)].join(", "));
  element.append(make("span", "twisty", children[i].length ? "▸" : ""),
    make("span", "star", onPath.has(i) ? "★" : ""), text,
    make("span", "tags", ...tags(i).map(tag => make("span", "tag " + tag, tag))),
    make("span", "count", children[i].length && !isOpen ? "+" + number(children[i].length) : ""));
  if (totals.visited) element.append(make("span", "visits", node.visits ? number(node.visits) : ""));
  element.append(meter(i));
  return element;
}

// The rows in sight

const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).fontSize) * 1.75; // as in page.css

/** The rows that scrolling to here shows, and a few around them: [first, after the last]. */
function inSight() {
  const height = rowHeight(), first = Math.max(0, Math.floor(tree.scrollTop / height) - 5);
  return [first, Math.min(rows.length, first + Math.ceil(tree.clientHeight / height) + 10)];
}

let drawn = [0, 0];

function draw() {
  const height = rowHeight(), [first, last] = drawn = inSight();
  byId("all").style.height = rows.length * height + "px";
  sight.style.transform = `translateY(${first * height}px)`;
  sight.replaceChildren(...rows.slice(first, last).map((row, k) => rowElement(row, first + k)));
  if (byId("row-" + cursor)) tree.setAttribute("aria-activedescendant", "row-" + cursor);
  else tree.removeAttribute("aria-activedescendant");
}

/** Lay the open rows out anew; where the selected one was folded away, its nearest visible ancestor takes over. */
function refresh() {
  rows = layout();
  const shown = new Set(rows.map(keyOf));
  let key = cursor, i = Number(cursor.slice(1));
  while (!shown.has(key)) {
    if (key[0] === "n") i = nodes[i].parent;
    key = "n" + i;
  }
  select(key);
}

function select(key) {
  cursor = key;
  const height = rowHeight(), top = at() * height;
  byId("all").style.height = rows.length * height + "px"; // before scrolling: the row may lie beyond the old end
  if (top < tree.scrollTop) tree.scrollTop = top;
  else if (top + height > tree.scrollTop + tree.clientHeight) tree.scrollTop = top + height - tree.clientHeight;
  draw();
  panel(Number(key.slice(1)));
}

function show(i) {
  reveal(i);
  cursor = "n" + i;
  refresh();
}

function activate(row) {
  if (row.node === undefined) {
    const next = family(row.more)[limit(row.more)];
    showMore(row.more);
    cursor = "n" + next;
  } else if (!open.delete(row.node) && children[row.node].length) open.add(row.node);
  refresh();
}

// The panel

function panel(i) {
  const node = nodes[i], value = node.value;
  const facts = [["Value", meter(i)], ["Visits", totals.visited ? number(node.visits ?? 0) : "not counted"],
    ...(node.backed_up ? [["Backed up", backedUp(...node.backed_up)]] : []),
    ["Children", number(children[i].length)], ["Depth", number(depth[i])], ["Node", String(node.id)],
    ["Cost", node.cost ? bill(node.cost)
      : totals.cost ? "none here: a state is billed once, at its first node" : "not recorded"]];
  const list = make("dl", "facts");
  for (const [name, fact] of facts) list.append(make("dt", "", name), make("dd", "", fact));
  detail.replaceChildren(
    make("h2", "", node.action === null ? "Start" : marked(node.action)),
    make("p", "tags", ...tags(i).map(tag => make("span", "tag " + tag, tag))), list,
    make("h3", "", "State"), make("pre", "", marked(node.state)));
  if (value) detail.append(make("h3", "", "Rationale"), value.rationale
    ? make("pre", "", marked(value.rationale)) : make("p", "quiet", "None recorded."));
  if (value) detail.append(...draws(value.samples));
  detail.append(make("h3", "", "Path"), steps(i));
  detail.scrollTop = 0;
}

function draws(samples) {
  if (!samples.length) return [make("h3", "", "Draws"), make("p", "quiet", "None: not judged by sampling.")];
  const body = make("tbody");
  samples.slice(0, STEP).forEach(([drawn, why], k) => body.append(make("tr", "", make("td", "", String(k + 1)),
    drawn === null ? make("td", "missing", "missing") : make("td", "", number(drawn)), make("td", "", why ?? ""))));
  const head = make("tr", "", ...["Draw", "Score", "Why missing"].map(name => make("th", "", name)));
  const rest = samples.length > STEP ? [make("p", "quiet", `and ${number(samples.length - STEP)} more`)] : [];
  return [make("h3", "", "Draws"), make("table", "", make("thead", "", head), body), ...rest];
}

function steps(i) {
  const path = pathTo(i), list = make("ol", "path");
  const from = Math.max(0, path.length - 40);
  list.start = from;
  for (const step of path.slice(from)) {
    const button = make("button", "", line(nodes[step].action ?? "Start"));
    button.type = "button";
    button.disabled = step === i;
    button.addEventListener("click", () => show(step));
    list.append(make("li", onPath.has(step) ? "chosen" : "", button, make("span", "number", worth(step))));
  }
  return list;
}

// Search

function search() {
  needle = query.value.trim().toLowerCase();
  matches = needle ? find(needle) : [];
  hits = new Set(matches);
  match = -1;
  if (matches.length) go(1);
  else refresh();
  for (const name of ["previous", "next"]) byId(name).disabled = !matches.length;
  if (!matches.length) byId("hits").textContent = needle ? "no match" : "";
}

function go(by) {
  if (!matches.length) return;
  match = (match + by + matches.length) % matches.length;
  byId("hits").textContent = `${number(match + 1)} of ${number(matches.length)}`;
  show(matches[match]);
}

let typing = 0;
query.addEventListener("input", () => {
  clearTimeout(typing);
  byId("hits").textContent = "…";
  typing = setTimeout(search, 200);
});
query.addEventListener("keydown", event => {
  if (event.key === "Escape") tree.focus();
  if (event.key !== "Enter") return;
  clearTimeout(typing);
  if (query.value.trim().toLowerCase() !== needle) search();
  else go(event.shiftKey ? -1 : 1);
});
byId("previous").addEventListener("click", () => go(-1));
byId("next").addEventListener("click", () => go(1));

// Keys and pointer

function step(by) {
  select(keyOf(rows[Math.min(Math.max(at() + by, 0), rows.length - 1)]));
}

function right(row) {
  if (row.node === undefined || !children[row.node].length) return;
  if (open.has(row.node)) step(1);
  else activate(row);
}

function left(row) {
  if (row.node === undefined) select("n" + row.more);
  else if (open.has(row.node)) activate(row);
  else if (nodes[row.node].parent !== null) select("n" + nodes[row.node].parent);
}

const page = () => Math.max(1, Math.floor(tree.clientHeight / rowHeight()) - 1);
const KEYS = {
  ArrowDown: () => step(1), ArrowUp: () => step(-1), PageDown: () => step(page()), PageUp: () => step(-page()),
  Home: () => step(-rows.length), End: () => step(rows.length), ArrowRight: right, ArrowLeft: left,
  Enter: activate, " ": activate, "/": () => query.focus(),
};

tree.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key](rows[at()]);
});

sight.addEventListener("click", event => {
  const row = rows[event.target.closest(".row")?.dataset.index];
  if (!row) return;
  cursor = keyOf(row);
  if (row.node === undefined || event.target.closest(".twisty") || event.detail === 2) activate(row);
  else select(cursor);
});

function scrolled() {
  if (String(inSight()) !== String(drawn)) draw(); // rows stay as they are under a click where nothing new is in sight
}

tree.addEventListener("scroll", scrolled);
new ResizeObserver(scrolled).observe(tree);

// Buttons and header

function showChosen() {
  open.clear();
  limits.clear();
  tree.scrollTop = 0;
  if (record.chosen === null) open.add(0);
  show(record.chosen ?? 0);
}

byId("show-chosen").disabled = record.chosen === null;
byId("show-chosen").addEventListener("click", () => { showChosen(); tree.focus(); });
byId("show-kept").addEventListener("click", () => {
  const done = new Set();
  nodes.forEach((node, i) => { if (node.kept) reveal(i, done); });
  refresh();
});
byId("close-all").addEventListener("click", () => {
  open.clear();
  limits.clear();
  refresh();
});
byId("sort").addEventListener("change", event => {
  sortBy(event.target.value);
  if (cursor[0] === "n") reveal(Number(cursor.slice(1)));
  if (needle) search();
  else refresh();
});

function header() {
  byId("task").textContent = record.task;
  byId("answer").textContent = record.answer === null ? "no answer recorded" : record.answer;
  const cost = totals.cost, missing = n => (n ? `, ${number(n)} missing` : "");
  const facts = [["Search", record.program], ["Information", record.information], ["Ended", record.ended],
    ["States", `${number(totals.states)}, ${number(totals.expanded)} expanded, ${number(totals.kept)} kept`],
    ["Judged", totals.judged ? number(totals.judged) + missing(totals.missing) : null],
    ["Draws", totals.draws ? number(totals.draws) + missing(totals.draws_missing) : null],
    ["Values", totals.lowest === null ? null : `${number(totals.lowest)} to ${number(totals.highest)}`],
    ["Cost", cost && bill(cost) + (cost.dollars !== null && cost.unpriced
      ? ` and ${count(cost.unpriced, "state")} of unknown price` : "")]];
  for (const [name, fact] of facts)
    if (fact) byId("facts").append(make("div", "", make("dt", "", name), make("dd", "", fact)));
  if (!totals.visited) {
    document.body.classList.add("no-visits");
    byId("sort").querySelector("[value=visits]").remove();
  }
}

header();
showChosen();
