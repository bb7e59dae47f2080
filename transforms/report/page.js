"use strict";
// Shows the rows whose caption or key has all words of the filter, and says how many these are.
const filter = document.getElementById("filter");
const shown = document.getElementById("shown");
const plain = (text) => text.normalize("NFKC").toLowerCase();
const rows = Array.from(document.querySelectorAll("[data-find]"), (node) => [node, plain(node.dataset.find)]);

function show() {
  const words = plain(filter.value).split(/\s+/).filter(Boolean);
  let count = 0;
  for (const [node, text] of rows) {
    node.hidden = !words.every((word) => text.includes(word));
    count += node.hidden ? 0 : 1;
  }
  shown.value = words.length ? `${count} of ${rows.length}` : `${rows.length} on this page`;
}

if (filter) {
  filter.addEventListener("input", show);
  show();
}
