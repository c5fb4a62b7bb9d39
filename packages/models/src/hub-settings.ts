import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileError, systemErrorCode } from "@tempora/errors";

/** Variables of the process, of which the hub's are read: those that Python's huggingface_hub reads. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the hub is, and where its files are kept. */
export interface HubSettings {
  /** HF_ENDPOINT, without a slash at the end. */
  endpoint: string;
  /** HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub: the folder that Python shares. */
  cache: string;
  /** HF_TOKEN, else the file that `hf auth login` writes; null: not logged in. */
  token: string | null;
  /** HF_HUB_OFFLINE: nothing is asked of the hub. */
  offline: boolean;
}

/** @throws TemporaError when there is a token file that cannot be read. */
export async function readHubSettings(environment: Environment = process.env): Promise<HubSettings> {
  const home = filled(environment.XDG_CACHE_HOME) ?? join(homedir(), ".cache");
  const hubHome = filled(environment.HF_HOME) ?? join(home, "huggingface");
  const cache = filled(environment.HF_HUB_CACHE) ?? filled(environment.HUGGINGFACE_HUB_CACHE) ?? join(hubHome, "hub");
  return {
    endpoint: (filled(environment.HF_ENDPOINT) ?? "https://huggingface.co").replace(/\/+$/, ""),
    cache: expandHome(cache),
    token: await readToken(environment, hubHome),
    offline: isTrue(filled(environment.HF_HUB_OFFLINE) ?? environment.TRANSFORMERS_OFFLINE),
  };
}

async function readToken(environment: Environment, hubHome: string): Promise<string | null> {
  const given = filled(environment.HF_TOKEN) ?? filled(environment.HUGGING_FACE_HUB_TOKEN);
  if (given !== undefined) return given;
  if (isTrue(environment.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return null;
  const file = expandHome(filled(environment.HF_TOKEN_PATH) ?? join(hubHome, "token"));
  try {
    return filled(await readFile(file, "utf8")) ?? null;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw fileError(error, "Cannot read the hub's token", file);
  }
}

function filled(value: string | undefined): string | undefined {
  const text = value?.trim();
  return text === "" ? undefined : text;
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((value ?? "").trim().toUpperCase());
}

function expandHome(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}
