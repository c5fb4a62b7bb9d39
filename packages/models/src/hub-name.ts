/** A model on the hub, as `org/name`, `org/name@revision` or `org/name/file.gguf@revision` names it. */
export interface HubName {
  /** org/name */
  id: string;
  /** Branch, tag or commit. */
  revision: string;
  /** The GGUF file that is meant, by its path in the repository; null: the safetensors checkpoint. */
  file: string | null;
}

export const hubNameForm = "org/name[@revision] or org/name/file.gguf[@revision]";

const part = /^[A-Za-z0-9_](?:[\w.-]*[\w])?$/;
const revisionForm = /^[\w.-]+(?:\/[\w.-]+)*$/;

/** null for what cannot be the name of a model on the hub. */
export function parseHubName(text: string): HubName | null {
  const at = text.indexOf("@");
  const path = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? "main" : text.slice(at + 1);
  const [org = "", name = "", ...rest] = path.split("/");
  if (!isPart(org) || !isPart(name) || !revisionForm.test(revision) || revision.split("/").includes("..")) return null;
  if (rest.length === 0) return { id: `${org}/${name}`, revision, file: null };
  const file = rest.join("/");
  if (!file.toLowerCase().endsWith(".gguf") || !isPlainPath(file)) return null;
  return { id: `${org}/${name}`, revision, file };
}

/** True for a path that stays within the folder it starts from. */
export function isPlainPath(path: string): boolean {
  return (
    path.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..") && !path.includes("\\")
  );
}

function isPart(text: string): boolean {
  return part.test(text) && !text.includes("--") && !text.includes("..");
}
