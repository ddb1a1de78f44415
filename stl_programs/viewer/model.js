"use strict";
// The tree and which rows of it are open. Nothing here touches the page except to read the record.

const record = JSON.parse(document.getElementById("record").textContent);
const nodes = record.nodes; // a node is named by its position here
const STEP = 200; // children shown before a "show more" row, and added by it

const roots = [];
const children = nodes.map(() => []);
const depth = [];
nodes.forEach((node, i) => {
  (node.parent === null ? roots : children[node.parent]).push(i);
  depth[i] = node.parent === null ? 0 : depth[node.parent] + 1;
});

/** From the root to node `i`, both included. */
function pathTo(i) {
  const path = [];
  for (; i !== null; i = nodes[i].parent) path.push(i);
  return path.reverse();
}

const chosenPath = record.chosen === null ? [] : pathTo(record.chosen);
const onPath = new Set(chosenPath);

const score = i => nodes[i].value?.score ?? null;
const RANKS = {
  value: i => score(i) ?? (nodes[i].value ? -1e300 : -Infinity), // missing below any score, not judged below missing
  visits: i => nodes[i].visits ?? 0,
  order: i => -i,
};
const tie = i => (onPath.has(i) ? 2 : 0) + (nodes[i].kept ? 1 : 0);

let sorting = "value";
const families = new Map(); // parent -> its children in the current order
const place = []; // of a node within its family; known once the family is sorted

function family(parent) {
  if (!families.has(parent)) {
    const rank = RANKS[sorting];
    const order = (a, b) => (rank(a) < rank(b)) - (rank(a) > rank(b)) || tie(b) - tie(a) || a - b;
    const sorted = [...(parent === null ? roots : children[parent])].sort(order);
    sorted.forEach((child, k) => { place[child] = k; });
    families.set(parent, sorted);
  }
  return families.get(parent);
}

function sortBy(name) {
  sorting = name;
  families.clear();
}

const open = new Set();
const limits = new Map(); // parent -> how many of its children are shown

const limit = parent => Math.min(limits.get(parent) ?? STEP, family(parent).length);
const showMore = parent => limits.set(parent, limit(parent) + STEP);

/** Open everything above node `i`, and enough of each family, so that its row is there. Nodes in `done` have theirs. */
function reveal(i, done = new Set()) {
  for (; nodes[i].parent !== null && !done.has(i); i = nodes[i].parent) {
    const parent = nodes[i].parent;
    done.add(i);
    family(parent);
    open.add(parent);
    if (place[i] >= limit(parent)) limits.set(parent, Math.ceil((place[i] + 1) / STEP) * STEP);
  }
}

/** The rows now open, from the top: {node} or, after a family's first children, {more: parent, left: count}. */
function layout() {
  const rows = [];
  const pending = [...family(null)].reverse().map(node => ({node}));
  while (pending.length) {
    const row = pending.pop();
    rows.push(row);
    if (row.node === undefined || !open.has(row.node)) continue;
    const all = family(row.node), shown = limit(row.node);
    if (shown < all.length) pending.push({more: row.node, left: all.length - shown});
    for (let k = shown - 1; k >= 0; k--) pending.push({node: all[k]});
  }
  return rows;
}

let haystack = null; // what a search reads, lower case, made on first use

/** The nodes whose action, state or rationale holds `text`, top to bottom of the whole tree as it is sorted. */
function find(text) {
  haystack ??= nodes.map(n => [n.action ?? "", n.state, n.value?.rationale ?? ""].join("\n").toLowerCase());
  const needle = text.toLowerCase(), found = [];
  const pending = [...family(null)].reverse();
  while (pending.length) {
    const i = pending.pop();
    if (haystack[i].includes(needle)) found.push(i);
    if (children[i].length) for (const child of [...family(i)].reverse()) pending.push(child);
  }
  return found;
}
