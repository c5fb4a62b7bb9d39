import { existsSync } from "node:fs";
import { defineConfig } from "vitepress";

const api = ["engine", "models", "text", "preferences", "training", "run"];

export default defineConfig({
  title: "Tempora",
  description: "Temporal self-rewarding training of language models, from TypeScript, on a native CPU and CUDA engine",
  // Where the site lies on its server.
  base: process.env.DOCS_BASE ?? "/",
  // Comments name servers of one's own.
  ignoreDeadLinks: "localhostLinks",
  // The text of comments is text: what is written <so> in them is no element.
  markdown: { math: true, html: false },
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    sidebar: [
      {
        text: "Guide",
        items: [
          { text: "Installing", link: "/" },
          { text: "Tutorial: a real model", link: "/tutorial" },
          { text: "The method", link: "/method" },
          { text: "Judging", link: "/judging" },
          { text: "Reading the report", link: "/report" },
          { text: "The engine from TypeScript", link: "/engine" },
        ],
      },
      {
        text: "Reference",
        items: [
          { text: "Settings", link: "/reference/settings" },
          ...api.map((name) => ({ text: `@tempora/${name}`, link: `/reference/api/${name}` })),
        ].filter(({ link }) => existsSync(new URL(`..${link}.md`, import.meta.url))),
      },
    ],
  },
});
