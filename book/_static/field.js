/* A table that the reader sorts and filters: <table class="field">, whose <th data-kind="number"> hold numbers.

   The heads become buttons, and above the table come a field for words and a list of families (the column "family").
   Without this script the table stays as it is.
*/
document.addEventListener("DOMContentLoaded", () => {
  for (const [number, table] of [...document.querySelectorAll("table.field")].entries()) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const text = (row, column) => row.cells[column].textContent.trim();
    const make = (name, properties) => Object.assign(document.createElement(name), properties);

    heads.forEach((head, column) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      const value = (row) => {
        const found = text(row, column);
        return head.dataset.kind !== "number" ? found : found === "" ? Infinity : Number(found.replaceAll(",", ""));
      };
      const compare = (a, b) => (typeof a === "number" ? (a === b ? 0 : a - b) : a.localeCompare(b));
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const sorted = [...rows].sort((a, b) => compare(value(a), value(b)) * (falling ? -1 : 1));
        body.append(...sorted);
      });
    });

    const bar = make("div", { className: "field-bar" });
    const words = make("input", { type: "search", id: `field-words-${number}` });
    const choice = make("select", { id: `field-family-${number}` });
    const column = heads.findIndex((head) => head.textContent === "family");
    const families = [...new Set(rows.map((row) => text(row, column)))];
    choice.append(new Option("all families", ""), ...families.map((family) => new Option(family, family)));
    const count = make("p", { className: "field-count" });
    count.setAttribute("role", "status");
    const label = (input, name) => make("label", { htmlFor: input.id, textContent: name });
    bar.append(label(words, "Only rows with"), words, label(choice, "of"), choice);

    const filter = () => {
      const asked = words.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of rows) {
        const own = row.textContent.toLowerCase();
        const fits = asked.every((word) => own.includes(word));
        row.hidden = !fits || (choice.value !== "" && text(row, column) !== choice.value);
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} methods`;
    };
    words.addEventListener("input", filter);
    choice.addEventListener("change", filter);
    table.before(bar, count);
    filter();
  }
});
