"use strict";
// Without scripts the page is whole: sorting and finding are what is added here.
const table = document.getElementById("slide-table");
const find = document.getElementById("find");
const state = document.getElementById("state");

function sortBy(header) {
  const index = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  const value = (row) => row.cells[index].dataset.v;
  const isNumber = header.classList.contains("num") || header.textContent === "Notes";
  const order = (a, b) => {
    const left = value(a), right = value(b);
    if (left === "" || right === "") return (left === "") - (right === ""); // what is not known stays last
    const sign = isNumber ? Number(left) - Number(right) : left.localeCompare(right, undefined, { numeric: true });
    return down ? -sign : sign;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort(order));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
}

function filter() {
  const text = find.value.trim().toLowerCase();
  const fits = (node, name) =>
    (!state.value || node.dataset.state === state.value) && name.toLowerCase().includes(text);
  let count = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !fits(row, row.cells[0].dataset.v);
    count += !row.hidden;
  }
  for (const card of document.querySelectorAll(".card")) {
    card.hidden = !fits(card, card.querySelector(".title").textContent);
    card.style.display = card.hidden ? "none" : "";
  }
  const total = table.tBodies[0].rows.length;
  document.getElementById("shown").textContent = count < total ? `${count} of ${total}` : "";
}

if (table) {
  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sortBy(header));
  }
  find.addEventListener("input", filter);
  state.addEventListener("input", filter);
}
