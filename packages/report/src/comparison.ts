import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { escapeHtml } from "./html.ts";

/** What several models answered to the same prompts with the same random numbers. */
export interface Comparison {
  /** As they are to be called. */
  models: string[];
  /** "temperature 0.7 · top-p 0.9 · seed 0" */
  facts: string;
  rows: ComparedPrompt[];
}

export interface ComparedPrompt {
  prompt: string;
  /** [models][samples] */
  answers: ComparedAnswer[][];
}

export interface ComparedAnswer {
  text: string;
  tokens: number;
  finish_reason: "stop" | "length";
}

/** A page of its own that needs no network: every prompt with the models' answers beside each other. */
export async function comparisonPage({ models, facts, rows }: Comparison): Promise<string> {
  const css = await readFile(fileURLToPath(new URL("../page/page.css", import.meta.url)), "utf8");
  const title = `${models.join(", ")} compared`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)} · Tempora</title>
<link rel="icon" href="data:,">
<style>${css}</style>
<script>document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";</script>
</head>
<body>
<header><div><h1>${escapeHtml(title)}</h1><span class="soft">${escapeHtml(facts)}</span></div></header>
<main>${rows.map((row) => promptHtml(models, row)).join("\n")}</main>
</body>
</html>
`;
}

function promptHtml(models: readonly string[], { prompt, answers }: ComparedPrompt): string {
  const sides = models.map((model, index) => {
    const shown = (answers[index] ?? []).map(
      (answer) =>
        `<div class="facts"><b>${escapeHtml(model)}</b> · ${answer.tokens} tokens${answer.finish_reason === "length" ? ", cut off" : ""}</div><div class="answer">${escapeHtml(answer.text)}</div>`,
    );
    return `<div class="side">${shown.join("")}</div>`;
  });
  return `<article class="card held-out"><div class="prompt">${escapeHtml(prompt)}</div><div class="answers">${sides.join("")}</div></article>`;
}
