export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** Cells are text; a row of one cell is a heading over all columns, as HTML. */
export function tableHtml(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return `<p class="note">Nothing yet.</p>`;
  const head = header.map((name) => `<th>${escapeHtml(name)}</th>`).join("");
  const body = rows.map((row) => {
    if (row.length === 1) return `<tr class="group"><td colspan="${header.length}">${row[0]}</td></tr>`;
    return `<tr>${row.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  });
  return `<div class="card scroll" style="margin-bottom:16px"><table><thead><tr>${head}</tr></thead><tbody>${body.join("")}</tbody></table></div>`;
}
