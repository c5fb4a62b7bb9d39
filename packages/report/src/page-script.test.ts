import { Window } from "happy-dom";
import { afterEach, expect, test } from "vitest";
import { sampleRun } from "./testing/sample-run.ts";
import { renderReport } from "./write-report.ts";

let window: Window | null = null;
afterEach(async () => {
  await window?.happyDOM.close();
});

/** Opens the report as a browser does: the body, then its scripts one after another. */
async function open(): Promise<Window["document"]> {
  const html = await renderReport(sampleRun());
  window = new Window({ width: 1200, height: 800 });
  const { document } = window;
  const [, body = ""] = /<body>(.*?)<script>/s.exec(html) ?? [];
  document.body.innerHTML = body;
  for (const [, script = ""] of html.matchAll(/<script>(.*?)<\/script>/gs)) {
    new Function("window", `with (window) { ${script} }`)(window);
  }
  return document;
}

function type(document: Window["document"], id: string, value: string, event: string): void {
  const field = document.getElementById(id) as unknown as { value: string; dispatchEvent(event: unknown): void };
  field.value = value;
  field.dispatchEvent(new (window as Window).Event(event));
}

const text = (document: Window["document"], id: string) => document.getElementById(id)?.textContent;

test("draws every chart and the first page of the pairs", async () => {
  const document = await open();
  expect(document.querySelectorAll(".chart").length).toBeGreaterThan(10);
  for (const chart of document.querySelectorAll(".chart")) expect(chart.querySelector("svg")).not.toBeNull();
  expect(text(document, "pair-count")).toBe("125 of 125 pairs");
  expect(text(document, "pair-page")).toBe("page 1 of 7");
  expect(document.querySelectorAll(".pair")).toHaveLength(20);
  expect(document.querySelector(".pair .answer")?.textContent).toBe("</script><script>alert(1)</script>");
});

test("filters pairs by strategy, phase and words, and marks the words", async () => {
  const document = await open();
  type(document, "pair-strategy", "self-rewarding", "change");
  expect(text(document, "pair-count")).toBe("25 of 125 pairs");
  type(document, "pair-strategy", "", "change");
  type(document, "pair-phase", "2", "change");
  expect(text(document, "pair-count")).toBe("50 of 125 pairs");
  type(document, "pair-search", "BAD 17", "input");
  expect(text(document, "pair-count")).toBe("2 of 125 pairs");
  expect(document.querySelector("mark")?.textContent).toBe("bad 17");
  expect(document.querySelector(".side.chosen .facts")?.textContent).toBe(
    "chosen · score 4.83 · true 4 · current (M0)",
  );
});

test("turns pages and orders by the score gap", async () => {
  const document = await open();
  const press = (id: string) => document.getElementById(id)?.dispatchEvent(new (window as Window).Event("click"));
  press("pair-after");
  expect(text(document, "pair-page")).toBe("page 2 of 7");
  type(document, "pair-order", "small", "change");
  expect(text(document, "pair-page")).toBe("page 1 of 7");
  expect(document.querySelector(".side.chosen .answer")?.textContent).toBe("good 24");
});

test("keys walk over a chart's points and say them, and stay at its ends", async () => {
  const document = await open();
  const chart = document.getElementById("chart-true-score");
  const press = (key: string) =>
    chart?.dispatchEvent(new (window as Window).KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  press("ArrowRight");
  expect(text(document, "chart-point")).toBe("True score: M0: temporal 2.5, self-rewarding 2.5");
  press("End");
  press("ArrowRight");
  expect(text(document, "chart-point")).toBe("True score: M2: temporal 3.5");
  press("ArrowLeft");
  expect(text(document, "chart-point")).toMatch(/: M1: /);
  press("Escape");
  expect(text(document, "chart-point")).toBe("");
});
