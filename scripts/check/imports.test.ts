import { describe, expect, test } from "vitest";
import { importProblems } from "./imports.ts";

function problems(path: string, text: string): string[] {
  return importProblems([{ path, text }]);
}

describe("imports between packages", () => {
  test("run downward", () => {
    expect(problems("packages/run/src/a.ts", 'import { Engine } from "@tempora/engine";')).toEqual([]);
    expect(problems("packages/engine/src/a.ts", '\nimport { runLoop } from "@tempora/run";')).toEqual([
      "packages/engine/src/a.ts:2: @tempora/run may not be imported by engine",
    ]);
  });

  test("keep preferences and world away from the engine, in types, re-exports and dynamic imports too", () => {
    expect(
      problems("packages/preferences/src/a.ts", 'import type {\n  Engine,\n} from "@tempora/engine";'),
    ).toHaveLength(1);
    expect(problems("packages/world/src/a.ts", 'export * from "@tempora/engine";')).toHaveLength(1);
    expect(problems("packages/world/src/a.ts", 'const e = await import("@tempora/engine");')).toHaveLength(1);
    expect(problems("packages/world/src/a.ts", 'import { Tokenizer } from "@tempora/text";')).toEqual([]);
  });

  test("go by a package's name, not into its folder", () => {
    expect(problems("packages/cli/src/a.ts", 'import { x } from "../../engine/src/model.ts";')).toHaveLength(1);
    expect(problems("packages/cli/src/a.ts", 'import { x } from "../src/b.ts";')).toEqual([]);
  });

  test("are refused in a package that has no place in the order", () => {
    expect(problems("packages/novel/src/a.ts", 'import { x } from "./b.ts";')).toHaveLength(1);
  });
});

describe("imports between the rooms of a package", () => {
  test("run downward, in code that is not a test's", () => {
    expect(problems("packages/run/src/stages/a.ts", 'import { x } from "../store/b.ts";')).toEqual([]);
    expect(problems("packages/run/src/stages/a.ts", 'import { x } from "../loop/b.ts";')).toEqual([
      "packages/run/src/stages/a.ts:1: ../loop/b.ts lies above stages/ in packages/run",
    ]);
    expect(problems("packages/run/src/stages/a.ts", 'import { x } from "../study.ts";')).toHaveLength(1);
    expect(problems("packages/run/src/stages/a.test.ts", 'import { x } from "../loop/b.ts";')).toEqual([]);
    expect(problems("packages/run/src/study.ts", 'import { x } from "./loop/b.ts";')).toEqual([]);
  });

  test("are refused in a room that has no place in the order", () => {
    expect(problems("packages/run/src/novel/a.ts", 'import { x } from "../store/b.ts";')).toHaveLength(1);
  });
});

describe("imports of the set-up", () => {
  test("are built-in modules only", () => {
    expect(problems("scripts/setup/a.ts", 'import { join } from "node:path";\nimport { x } from "./b.ts";')).toEqual(
      [],
    );
    expect(problems("scripts/setup/a.ts", 'import { z } from "zod";')).toHaveLength(1);
    expect(problems("scripts/check.ts", 'import { z } from "zod";')).toEqual([]);
  });
});

describe("includes", () => {
  test("of a backend point downward", () => {
    expect(problems("native/src/backend/backend.h", '#include "../forest/forest.h"')).toEqual([]);
    expect(problems("native/src/backend/cuda/optimizer.cu", '#include "../../forest/random.h"')).toEqual([]);
    expect(problems("native/src/backend/cpu/head.cpp", '#include "../../engine/decoder.h"')).toHaveLength(1);
    expect(problems("native/src/backend/cpu/head.cpp", '#include "engine/decoder.h"')).toHaveLength(1);
    expect(problems("native/src/backend/cpu/head.cpp", '#include "../cuda/arena.h"')).toHaveLength(1);
  });

  test("of the forest stay in its room", () => {
    expect(problems("native/src/forest/forest.cpp", '#include "forest.h"\n#include <vector>')).toEqual([]);
    expect(problems("native/src/forest/forest.cpp", '#include "../backend/backend.h"')).toHaveLength(1);
    expect(problems("native/src/forest/forest.cpp", '#include "../engine/engine.h"')).toHaveLength(1);
    expect(problems("native/src/novel/a.cpp", '#include "a.h"')).toHaveLength(1);
  });

  test("of the engine know backend.h only", () => {
    expect(problems("native/src/engine/block.cpp", '#include "../backend/backend.h"\n#include "block.h"')).toEqual([]);
    expect(problems("native/src/engine/block.cpp", '#include "../forest/random.h"')).toEqual([]);
    expect(problems("native/src/engine/block.cpp", '#include "../backend/cpu/cpu_backend.h"')).toHaveLength(1);
    expect(problems("native/src/engine/block.cpp", '#include "../addon/job.h"')).toHaveLength(1);
  });

  test("of N-API stand in the addon only", () => {
    expect(problems("native/src/addon/engine.cpp", "#include <napi.h>")).toEqual([]);
    expect(problems("native/src/engine/engine.cpp", "#include <napi.h>")).toHaveLength(1);
  });
});
