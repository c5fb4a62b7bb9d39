import { knownHash } from "../models/known-hashes.ts";
import type { ModelRef, WholeModel } from "../models/model-ref.ts";
import type { RunContext } from "./context.ts";

/** What is hashed sooner needs no progress, in milliseconds. */
const silence = 1000;

/** A whole model that the run did not make, with the progress of its hashing where that is not known. */
export async function givenModel(
  context: RunContext,
  name: string,
  { folder, files }: Pick<WholeModel, "folder" | "files">,
): Promise<ModelRef> {
  const { observer, store, signal } = context;
  const id = `hash ${folder}`;
  const began = performance.now();
  let begun = false;
  const onProgress = (done: number, total: number) => {
    if (!begun && performance.now() - began < silence) return;
    if (!begun) observer.begin({ id, label: id, total, unit: "tensors" });
    begun = true;
    observer.progress(id, done);
  };
  const hash = await knownHash(store.folder, folder, { signal, onProgress });
  if (begun) observer.finish(id, { reused: false, seconds: (performance.now() - began) / 1000 });
  return { name, folder, hash, files, base: null };
}
