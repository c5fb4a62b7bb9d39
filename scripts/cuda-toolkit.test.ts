import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { chooseWheel, findNvcc } from "./cuda-toolkit.ts";

const files = ["1.0-py3-none-manylinux2014_aarch64", "1.0-py3-none-manylinux2014_x86_64", "1.0-py3-none-win_amd64"].map(
  (tail) => ({ filename: `nvidia_thing-${tail}.whl`, url: `https://example.org/${tail}`, hashes: { sha256: "" } }),
);

test("takes the wheel of the version and the machine's architecture", () => {
  expect(chooseWheel(files, "1.0", "x64").filename).toBe("nvidia_thing-1.0-py3-none-manylinux2014_x86_64.whl");
  expect(chooseWheel(files, "1.0", "arm64").filename).toBe("nvidia_thing-1.0-py3-none-manylinux2014_aarch64.whl");
});

test("names a version that PyPI does not have", () => {
  expect(() => chooseWheel(files, "2.0", "x64")).toThrow("no wheel of version 2.0 for Linux x86_64");
});

test("finds nvcc by CUDACXX first, then on PATH", () => {
  const folder = mkdtempSync(join(tmpdir(), "tempora-nvcc-"));
  try {
    const nvcc = join(folder, "nvcc");
    writeFileSync(nvcc, "");
    chmodSync(nvcc, 0o755);
    expect(findNvcc({ PATH: `/nowhere:${folder}` })).toBe(nvcc);
    expect(findNvcc({ PATH: folder, CUDACXX: "/opt/nvcc" })).toBe("/opt/nvcc");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
