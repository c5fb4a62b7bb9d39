import { describe, expect, it } from "vitest";
import { ContentHash } from "./content-hash.ts";

describe("ContentHash", () => {
  const of = (...texts: string[]) => texts.reduce((hash, text) => hash.text(text), new ContentHash()).digest();

  it("keeps its pieces apart", () => {
    expect(of("ab", "c")).not.toBe(of("a", "bc"));
    expect(of("a", "")).not.toBe(of("a"));
    expect(new ContentHash().ids([1, 2]).ids([]).digest()).not.toBe(new ContentHash().ids([1]).ids([2]).digest());
  });

  it("is the same for the same content", () => {
    expect(of("é", "b")).toBe(of("é", "b"));
    expect(new ContentHash().json({ a: 1, b: [2] }).digest()).toBe(new ContentHash().json({ b: [2], a: 1 }).digest());
    expect(new ContentHash().ids([70000, 1]).digest()).not.toBe(new ContentHash().ids([4464, 1]).digest());
  });
});
