import { TemporaError } from "@tempora/errors";
import type { HubCache } from "./hub-cache.ts";
import { HubRefusal, HubUnreachable } from "./hub-client.ts";
import { type HubName, hubNameForm } from "./hub-name.ts";
import type { HubSettings } from "./hub-settings.ts";

/** What the hub or the network said, for a user who named a model; anything else passes through. */
export async function hubError(
  error: unknown,
  name: HubName,
  settings: HubSettings,
  cache: HubCache,
): Promise<unknown> {
  if (error instanceof HubUnreachable) {
    return new TemporaError(`${path(name)} is no path here, and the hub cannot be reached: ${error.message}`, {
      where: { file: settings.endpoint },
      remedy: `Check the path, the network, or HF_ENDPOINT. ${await cacheText(name, cache)}`,
      cause: error,
    });
  }
  if (!(error instanceof HubRefusal)) return error;
  const page = `${settings.endpoint}/${name.id}`;
  const where = { file: page };
  const cause = error;
  const login = settings.token === null ? "set HF_TOKEN, or run `hf auth login`" : "check the token (HF_TOKEN)";
  if (error.code === "GatedRepo" || error.status === 403) {
    return new TemporaError(`The model ${name.id} is gated, and this account has no access`, {
      where,
      remedy: `Accept its conditions on ${page}, then ${login}.`,
      cause,
    });
  }
  if (error.code === "RevisionNotFound") {
    return new TemporaError(`The model ${name.id} has no revision ${name.revision}`, {
      where,
      remedy: `Name a branch, a tag or a commit, as ${name.id}@main.`,
      cause,
    });
  }
  if (error.status === 401 || (error.status === 404 && error.code !== "EntryNotFound")) {
    return new TemporaError(`${path(name)} is neither a path here nor a model that the hub shows to this account`, {
      where,
      remedy: `Check the path or the name (${hubNameForm}); for a private model ${login}.`,
      cause,
    });
  }
  return new TemporaError(`The hub does not answer as it should: ${error.message}`, {
    where,
    remedy: "Try again later, or check HF_ENDPOINT.",
    cause,
  });
}

/** Offline, and not in the cache. */
export async function offlineError(name: HubName, cache: HubCache): Promise<TemporaError> {
  return new TemporaError(`${path(name)} is no path here, and the hub is not asked: HF_HUB_OFFLINE is set`, {
    where: { file: cache.folder },
    remedy: `Unset HF_HUB_OFFLINE to fetch it. ${await cacheText(name, cache)}`,
  });
}

function path({ id, file }: HubName): string {
  return file === null ? id : `${id}/${file}`;
}

/** What could be used instead of the hub. */
async function cacheText(name: HubName, cache: HubCache): Promise<string> {
  const revisions = await cache.revisions();
  if (revisions.length > 0) {
    return `In the cache lies ${name.id} at ${revisions.join(", ")}, but not all of ${path(name)}@${name.revision}.`;
  }
  const models = await cache.models();
  if (models.length === 0) return "The cache holds no model.";
  const shown = models.slice(0, 8).join(", ") + (models.length > 8 ? ", ..." : "");
  return `The cache holds ${shown}.`;
}
