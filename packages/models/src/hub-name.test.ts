import { expect, test } from "vitest";
import { type HubName, parseHubName } from "./hub-name.ts";

test.each<[string, HubName]>([
  ["org/name", { id: "org/name", revision: "main", file: null }],
  ["org/name@v1.0", { id: "org/name", revision: "v1.0", file: null }],
  ["org/name@refs/pr/3", { id: "org/name", revision: "refs/pr/3", file: null }],
  ["org/name/q4.gguf", { id: "org/name", revision: "main", file: "q4.gguf" }],
  ["org/name/folder/Q4.GGUF@dev", { id: "org/name", revision: "dev", file: "folder/Q4.GGUF" }],
])("%s is a name on the hub", (text, name) => {
  expect(parseHubName(text)).toEqual(name);
});

test.each([
  "name",
  "./name",
  "../name",
  "/org/name",
  "org/",
  "org/name/",
  "org/name/model.bin",
  "org/name/../other.gguf",
  "org/name/a\\b.gguf",
  "org/..",
  "org/na..me",
  "org/na--me",
  "org/name@",
  // These would leave the folder of the cache.
  "org/name@..",
  "org/name@../main",
  "org/name@a/../../b",
  "org/name@/main",
])("%j is none", (text) => {
  expect(parseHubName(text)).toBeNull();
});
