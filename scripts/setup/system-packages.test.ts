import { describe, expect, test } from "vitest";
import { buildNeeds, familyOf, installCommand, type System } from "./system-packages.ts";

const system = (osRelease: string, more: Partial<System> = {}): System => ({
  platform: "linux",
  osRelease,
  root: false,
  ...more,
});
const debian = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n';
const ubuntu = "ID=ubuntu\nID_LIKE=debian\n";
const mint = 'ID=linuxmint\nID_LIKE="ubuntu debian"\n';
const rocky = 'ID="rocky"\nID_LIKE="rhel centos fedora"\n';

describe("familyOf", () => {
  test("knows systems by ID and by ID_LIKE", () => {
    expect([debian, ubuntu, mint].map((text) => familyOf(system(text)))).toEqual(["debian", "debian", "debian"]);
    expect(familyOf(system(rocky))).toBe("fedora");
    expect(familyOf(system("ID=arch\n"))).toBe("arch");
    expect(familyOf(system("", { platform: "darwin" }))).toBe("macos");
    expect(familyOf(system("ID=nixos\n"))).toBe("other");
  });
});

describe("installCommand", () => {
  test("names this system's packages", () => {
    expect(installCommand(buildNeeds, system(debian, { root: true }))).toBe(
      "apt-get update && apt-get install -y --no-install-recommends cmake ninja-build g++ libdnnl-dev",
    );
    expect(installCommand(["onednn"], system("ID=fedora\n", { root: true }))).toBe("dnf install -y onednn-devel");
    expect(installCommand(["ninja", "onednn"], system("", { platform: "darwin" }))).toBe("brew install ninja onednn");
    expect(installCommand(["onednn"], system("ID=nixos\n"))).toContain("oneDNN (library and headers)");
  });

  test("asks for sudo where the user is not root", () => {
    expect(installCommand(["cmake"], system(ubuntu))).toBe(
      "sudo apt-get update && sudo apt-get install -y --no-install-recommends cmake",
    );
    expect(installCommand(["cmake"], system("ID=arch\n"))).toBe("sudo pacman -S --needed cmake");
  });
});
