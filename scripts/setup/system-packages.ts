import { existsSync, readFileSync } from "node:fs";
import { run, SetupError, say } from "./command.ts";

export type Need = "cmake" | "ninja" | "compiler" | "onednn" | "clang-format";
type Family = "debian" | "fedora" | "arch" | "macos" | "other";

/** What the engine is built with. */
export const buildNeeds: readonly Need[] = ["cmake", "ninja", "compiler", "onednn"];

const packageNames: Record<Exclude<Family, "other">, Record<Need, string>> = {
  debian: {
    cmake: "cmake",
    ninja: "ninja-build",
    compiler: "g++",
    onednn: "libdnnl-dev",
    "clang-format": "clang-format",
  },
  fedora: {
    cmake: "cmake",
    ninja: "ninja-build",
    compiler: "gcc-c++",
    onednn: "onednn-devel",
    "clang-format": "clang-tools-extra",
  },
  arch: { cmake: "cmake", ninja: "ninja", compiler: "gcc", onednn: "onednn", "clang-format": "clang" },
  // Apple's clang comes without OpenMP.
  macos: { cmake: "cmake", ninja: "ninja", compiler: "libomp", onednn: "onednn", "clang-format": "clang-format" },
};

const installers: Record<Exclude<Family, "other">, string> = {
  debian: "apt-get update && apt-get install -y --no-install-recommends",
  fedora: "dnf install -y",
  arch: "pacman -S --needed",
  macos: "brew install",
};

export interface System {
  platform: NodeJS.Platform;
  /** Content of /etc/os-release, or "". */
  osRelease: string;
  root: boolean;
}

export function thisSystem(): System {
  const file = "/etc/os-release";
  return {
    platform: process.platform,
    osRelease: existsSync(file) ? readFileSync(file, "utf8") : "",
    root: process.getuid?.() === 0,
  };
}

export function familyOf(system: System): Family {
  if (system.platform === "darwin") return "macos";
  const names = [...system.osRelease.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)].flatMap((match) =>
    (match[1] ?? "").split(" "),
  );
  if (names.some((name) => name === "debian" || name === "ubuntu")) return "debian";
  if (names.some((name) => name === "fedora" || name === "rhel")) return "fedora";
  if (names.includes("arch")) return "arch";
  return "other";
}

/** The command that installs what is missing on this system, as the user has to type it. */
export function installCommand(missing: readonly Need[], system: System): string {
  const family = familyOf(system);
  if (family === "other") {
    return (
      "install, with your system's package manager: " +
      missing.map((need) => (need === "onednn" ? "oneDNN (library and headers)" : need)).join(", ")
    );
  }
  const names = missing.map((need) => packageNames[family][need]).join(" ");
  const command = `${installers[family]} ${names}`;
  if (family === "macos" || system.root) return command;
  return command.replaceAll(/(apt-get|dnf|pacman) /g, "sudo $1 ");
}

/** The compiler that CMake will take: CXX, or the first that is there. */
function compiler(): string | null {
  const named = process.env.CXX;
  if (named) return Bun.which(named);
  return Bun.which("c++") ?? Bun.which("g++") ?? Bun.which("clang++");
}

function findsOneDnn(): boolean {
  const cxx = compiler();
  const prefixes = (process.env.CMAKE_PREFIX_PATH ?? "")
    .split(":")
    .concat("/opt/homebrew", process.env.CONDA_PREFIX ?? "");
  if (prefixes.some((prefix) => prefix !== "" && existsSync(`${prefix}/include/dnnl.hpp`))) return true;
  if (cxx === null) return existsSync("/usr/include/dnnl.hpp");
  // The compiler knows its own search path, CPATH included.
  const probe = Bun.spawnSync([cxx, "-x", "c++", "-E", "-o", "/dev/null", "-"], {
    stdin: Buffer.from("#include <dnnl.hpp>\n"),
    stdout: "ignore",
    stderr: "ignore",
  });
  return probe.exitCode === 0;
}

export function missingPackages(needs: readonly Need[]): Need[] {
  const isThere: Record<Need, () => boolean> = {
    cmake: () => Bun.which("cmake") !== null,
    ninja: () => Bun.which("ninja") !== null || Bun.which("ninja-build") !== null,
    compiler: () => compiler() !== null,
    onednn: findsOneDnn,
    "clang-format": () => Bun.which("clang-format") !== null,
  };
  return needs.filter((need) => !isThere[need]());
}

/** Installs what is missing where that is allowed (Debian's family, as root); throws the command to type elsewhere. */
export async function ensureSystemPackages(needs: readonly Need[]): Promise<void> {
  const missing = missingPackages(needs);
  if (missing.length === 0) return;
  const system = thisSystem();
  const command = installCommand(missing, system);
  if (familyOf(system) !== "debian" || !system.root) {
    throw new SetupError(`This machine lacks ${missing.join(", ")}. To install:\n\n    ${command}\n`);
  }
  say(`tempora: installing ${missing.join(", ")} (${command})`);
  const code = await run(["sh", "-c", command], { env: { DEBIAN_FRONTEND: "noninteractive" } });
  const still = missingPackages(missing);
  if (code !== 0 || still.length > 0) {
    throw new SetupError(
      `${still.join(", ")} could not be installed (apt-get: exit code ${code}). To try by hand:\n\n    ${command}\n`,
    );
  }
}
